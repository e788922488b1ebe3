package registry

import (
	"context"
	"net/url"
)

// catalog stands for all repositories. It is not a valid repository name.
const catalog = "*"

// GetCatalog is Get for a resource outside of a repository, such as the change feed. It sends a
// query and a token with the catalog scope. Few accounts may read it. For others the error is a
// fault with reason Unauthorized.
func (c *Client) GetCatalog(ctx context.Context, file string, query url.Values, limit int64) ([]byte, error) {
	target, err := c.target(file)
	if err != nil {
		return nil, err
	}
	target.RawQuery = query.Encode()
	return c.get(ctx, catalog, target, limit)
}

// scope returns the scope of a token for a repository. It is empty for an empty repository.
func scope(repository string) string {
	switch repository {
	case "":
		return ""
	case catalog:
		return "registry:catalog:*"
	default:
		return "repository:" + repository + ":pull"
	}
}
