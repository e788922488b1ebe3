package notarysign

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// maxSeen bounds the versions of one repository, in bytes.
const maxSeen = 1 << 20

// Seen remembers which versions of a repository's files a server has had. A server that shows older
// ones would otherwise have what was revoked signed again. *SeenFolder implements it.
type Seen interface {
	// Read returns the versions; empty: none are remembered.
	Read(repository string) ([]byte, error)
	// Write replaces the versions.
	Write(repository string, versions []byte) error
	// Origin names what to remove to forget the versions.
	Origin(repository string) string
}

// SeenFolder remembers in a file for each repository of a server.
type SeenFolder struct {
	// Dir is the folder. It need not exist.
	Dir string
	// Server is the URL of the server: two servers may have repositories of one name.
	Server string
}

var _ Seen = (*SeenFolder)(nil)

// Origin implements Seen.
func (s *SeenFolder) Origin(repository string) string {
	sum := sha256.Sum256([]byte(s.Server + "\n" + repository))
	return filepath.Join(s.Dir, hex.EncodeToString(sum[:])+".json")
}

// Read implements Seen.
func (s *SeenFolder) Read(repository string) ([]byte, error) {
	name := s.Origin(repository)
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > maxSeen:
		return nil, fmt.Errorf("%s is not a file with versions; remove it", name)
	}
	f, err := os.Open(name) //nolint:gosec // the name is one of the trust directory
	if err != nil {
		return nil, err
	}
	defer f.Close()
	versions, err := io.ReadAll(io.LimitReader(f, maxSeen))
	if err == nil && !json.Valid(versions) {
		err = fmt.Errorf("%s is not a file with versions; remove it", name)
	}
	return versions, err
}

// Write implements Seen.
func (s *SeenFolder) Write(repository string, versions []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	return notarykeys.WriteFile(s.Origin(repository), versions, true)
}

// readSince reads what the server has. It refuses what is older than the versions seen before, and
// remembers the new versions.
func (r *Repository) readSince(ctx context.Context, root *notary.Root) (*notary.Contents, error) {
	if r.conn.Seen == nil {
		return root.Read(ctx, r.name, maxExpired, nil)
	}
	seen, err := r.conn.Seen.Read(r.name)
	if err != nil {
		return nil, fmt.Errorf("reading the versions that were seen before: %w", err)
	}
	origin := r.conn.Seen.Origin(r.name)
	c, err := root.Read(ctx, r.name, maxExpired, seen)
	switch f, _ := errors.AsType[*trust.Fault](err); {
	case errors.Is(err, notary.ErrUnsigned) && len(seen) > 0:
		return nil, fmt.Errorf("the server has no trust data of %s, and had some before; if it was deleted on "+
			"purpose, remove %s", r.name, origin)
	case f != nil && f.Reason == v1alpha1.ReasonRollback:
		return nil, fmt.Errorf("%w; if the server was restored from a backup, remove %s, and revoke again what was "+
			"revoked since", err, origin)
	case err != nil:
		return nil, err
	}
	if err := r.conn.Seen.Write(r.name, c.Versions); err != nil {
		r.warn("the versions seen could not be remembered, so a server could show older ones: %v", err)
	}
	return c, nil
}
