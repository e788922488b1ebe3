package tufrepo

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Target fetches a target that the top-level targets role has signed, and checks its length and
// hashes (section 5.7). Delegations are not searched. The error satisfies errors.Is(err,
// trust.ErrNotFound) if the role lists no such target, and is a *trust.Fault otherwise.
func (c *Client) Target(ctx context.Context, s *State, path string) ([]byte, error) {
	t, err := c.listed(s, path)
	if err != nil {
		return nil, err
	}
	if err := c.checkExpiry(s, c.now()); err != nil {
		return nil, err
	}
	if t.Length > c.maxTarget {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge,
			"%s: target %s is listed with %d bytes, more than the %d that are read", c.name, path, t.Length,
			c.maxTarget)
	}
	hash := t.SHA256
	if hash == "" {
		hash = t.SHA512
	}
	raw, err := c.getListed(ctx, c.targets+"/"+targetFile(path, hash, s.root().consistent), t.Length)
	if err != nil {
		return nil, err
	}
	if err := c.checkTarget(t, path, raw); err != nil {
		return nil, err
	}
	return raw, nil
}

// CheckTarget verifies the content of a target that was fetched before, without a network. The
// State may have expired. The error is as that of Target.
func (c *Client) CheckTarget(s *State, path string, content []byte) error {
	t, err := c.listed(s, path)
	if err != nil {
		return err
	}
	return c.checkTarget(t, path, content)
}

// listed returns the entry of a target in the top-level targets.
func (c *Client) listed(s *State, path string) (Target, error) {
	if err := checkPath(path, maxPath); err != nil {
		return Target{}, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: target %w", c.name, err)
	}
	if err := c.check(s); err != nil {
		return Target{}, err
	}
	t, ok := s.targets.target(path)
	if !ok || !t.bound() {
		return Target{}, fmt.Errorf("%s: targets.json lists no %s: %w", c.name, path, trust.ErrNotFound)
	}
	return t, nil
}

// checkTarget compares a target with its entry.
func (c *Client) checkTarget(t Target, path string, raw []byte) error {
	if int64(len(raw)) != t.Length {
		return c.fault(path, fmt.Errorf("it has %d bytes, and targets.json lists %d", len(raw), t.Length))
	}
	if err := (meta{sha256: t.SHA256, sha512: t.SHA512}).check(raw); err != nil {
		return c.fault(path, err)
	}
	return nil
}

// targetFile returns the escaped path of a target's file. With consistent snapshots its hash is in
// its name (section 5.7.3).
func targetFile(path, hash string, consistent bool) string {
	elements := strings.Split(path, "/")
	if last := len(elements) - 1; consistent {
		elements[last] = hash + "." + elements[last]
	}
	for i, element := range elements {
		elements[i] = url.PathEscape(element)
	}
	return strings.Join(elements, "/")
}
