package registry

import (
	"context"
	"net/url"
)

// catalog stands for a repository where all of them are meant. It is the name of none.
const catalog = "*"

// GetCatalog is Get of what is of no repository, such as a list of all that was published, with a
// query and with a token for the catalogue. Few accounts may read it; for the others it is a fault,
// Unauthorized.
func (c *Client) GetCatalog(ctx context.Context, file string, query url.Values, limit int64) ([]byte, error) {
	target, err := c.target(file)
	if err != nil {
		return nil, err
	}
	target.RawQuery = query.Encode()
	return c.get(ctx, catalog, target, limit)
}

// scope is what a token is asked for, empty where a repository is.
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
