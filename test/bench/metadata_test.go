package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/test/handmade"
)

// digestHex returns the digest of tag i of a repository, in hexadecimal. There is no such image.
func digestHex(repository string, i int) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", repository, i)))
}

// published returns n signed repositories: their signers, and their files by path.
func published(tb testing.TB, n int) (*handmade.Signers, map[string][]byte) {
	tb.Helper()
	s, files := handmade.NewSigners(tb, roles()...), make(map[string][]byte)
	for i := range n {
		r := handmade.Repository{Name: repositoryName(i), Digests: map[string]string{}}
		for j := range tags {
			r.Digests[tag(j)] = digestHex(r.Name, j)
		}
		s.Publish(tb, r, files)
	}
	return s, files
}

// pin returns a configuration that pins the root key.
func pin(s *handmade.Signers) notary.Config {
	return notary.Config{Name: "acme-notary", RootKeyIDs: []string{s.Root.Canonical}}
}

// memory serves the files of a Notary server from memory.
type memory map[string][]byte

// Get implements notary.Getter.
func (m memory) Get(_ context.Context, _, path string, _ int64) ([]byte, error) {
	if raw, ok := m[path]; ok {
		return raw, nil
	}
	return nil, fmt.Errorf("%s: %w", path, trust.ErrNotFound)
}

// each calls do for every number below n, at most atOnce at the same time. It fails with the first
// error.
func each(tb testing.TB, n, atOnce int, do func(ctx context.Context, i int) error) {
	tb.Helper()
	group, ctx := errgroup.WithContext(tb.Context())
	group.SetLimit(atOnce)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	check(tb, group.Wait())
}

// isTimestamp reports whether a path is that of a timestamp, the only file that a refresh fetches
// if nothing changed.
func isTimestamp(path string) bool { return strings.HasSuffix(path, "/timestamp.json") }
