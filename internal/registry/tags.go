package registry

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxTagPages bounds the pages of a list of tags, and maxTagBytes what all of them have.
	maxTagPages = 64
	maxTagBytes = 4 << 20
)

// Tags lists the tags of a repository in the registry's order (OCI distribution specification,
// "Listing Tags"), at most limit of them. more says that there are others. Its errors are those of
// Resolve.
func (i *Images) Tags(ctx context.Context, repository string, limit int) (tags []string, more bool, err error) {
	type list struct {
		tags []string
		more bool
	}
	got, err := read(ctx, i, repository, func(at imageRepository) (list, error) {
		tags, more, err := at.tags(ctx, limit)
		return list{tags, more}, err
	})
	return got.tags, got.more, err
}

func (r imageRepository) tags(ctx context.Context, limit int) (tags []string, more bool, err error) {
	target, err := r.target("tags/list")
	if err != nil {
		return nil, false, err
	}
	target.RawQuery = url.Values{"n": {"1000"}}.Encode()
	left := int64(maxTagBytes)
	for page := 1; target != nil; page++ {
		if page > maxTagPages || left <= 0 {
			return tags, true, nil
		}
		wanted := request{target: target, accept: "application/json", limit: left}
		resp, body, err := r.client.send(ctx, r.path, wanted)
		if err != nil {
			return nil, false, err
		}
		if err := r.client.checkResponse(resp, body); err != nil {
			return nil, false, err
		}
		left -= int64(len(body))
		var listed struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(body, &listed); err != nil {
			return nil, false, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the list of tags is no JSON: %w",
				shownURL(target), err)
		}
		if tags = append(tags, listed.Tags...); len(tags) > limit {
			return tags[:limit], true, nil
		}
		if target, err = next(r, resp); err != nil {
			return nil, false, err
		}
	}
	return tags, false, nil
}
