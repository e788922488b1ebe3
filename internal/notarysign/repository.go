package notarysign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// maxExpired is for how long a file may have expired and can still be renewed.
const maxExpired = 20 * year

// ErrNoRepository is the error of Open for a repository that the server does not have.
var ErrNoRepository = errors.New("the Notary server has no trust data of this repository")

// ErrNotPinned is the error of Open for a repository whose root no pin leads to.
var ErrNotPinned = errors.New("its root is not signed by a pinned root key; compare the key IDs that 'trust pin' " +
	"prints with those of the publisher, and give the right one with --root")

// Connection is the way to a server and a key store.
type Connection struct {
	Server Server
	Keys   Keys
	// Now returns the time. Nil: time.Now.
	Now func() time.Time
	// Seen remembers the versions of the files. Nil: nothing is remembered, and so a server can
	// show old files.
	Seen Seen
}

// Repository is a repository in memory, with the changes to publish. It is not safe for concurrent
// use. Close ends it.
type Repository struct {
	conn Connection
	name string
	at   time.Time
	pins Pins

	root      *rootFile
	rootRaw   json.RawMessage // signed part that the server has; nil: the repository is new
	oldRoot   *rootFile       // the root that the server has
	newest    []byte          // root.json that the server has
	snapshot  *snapshotFile
	snapRaw   json.RawMessage
	timestamp header
	files     map[string]*targetsEntry // targets and delegations, by role
	rejected  map[string]string
	raw       map[string][]byte // what the server has, by role

	rootChanged     bool
	snapshotChanged bool
	atServer        []string // roles of which the server makes a new key
	changes         []string
	warnings        []string

	unlocked map[string]*notarykeys.Signer // by canonical ID
	created  []*notarykeys.Signer          // not in the store yet
	stored   []string                      // IDs that this run has added to the store
}

// targetsEntry is targets.json or the file of a delegation.
type targetsEntry struct {
	*targetsFile

	raw     json.RawMessage // signed part that the server has; nil: none, or none that counts
	changed bool
}

// Open fetches a repository and verifies it under the pins. The error satisfies errors.Is(err,
// ErrNoRepository) if the server has none.
func Open(ctx context.Context, conn Connection, repository string, pins Pins) (*Repository, error) {
	r := newRepository(conn, repository, pins)
	c, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	return r, r.load(c)
}

func newRepository(conn Connection, repository string, pins Pins) *Repository {
	if conn.Now == nil {
		conn.Now = time.Now
	}
	return &Repository{
		conn: conn, name: repository, at: conn.Now().UTC(), pins: pins,
		files: map[string]*targetsEntry{}, raw: map[string][]byte{}, unlocked: map[string]*notarykeys.Signer{},
	}
}

// read fetches and verifies what the server has.
func (r *Repository) read(ctx context.Context) (*notary.Contents, error) {
	root, err := notary.New(notary.Config{
		Name: r.name, RootKeyIDs: r.pins.KeyIDs, RootKeys: r.pins.Keys, Clock: r.conn.Now,
	}, r.conn.Server)
	if err != nil {
		return nil, err
	}
	c, err := r.readSince(ctx, root)
	switch f, _ := errors.AsType[*trust.Fault](err); {
	case errors.Is(err, notary.ErrUnsigned):
		return nil, fmt.Errorf("%s: %w", r.name, ErrNoRepository)
	case f != nil && f.Reason == v1alpha1.ReasonRootNotPinned:
		return nil, fmt.Errorf("%s: %w", r.name, ErrNotPinned)
	}
	return c, err
}

// load decodes the verified files.
func (r *Repository) load(c *notary.Contents) error {
	r.newest, r.raw, r.rejected = c.Roots[len(c.Roots)-1], c.Files, c.Rejected
	r.root, r.oldRoot, r.snapshot = &rootFile{}, &rootFile{}, &snapshotFile{}
	e, err := decode(r.newest, r.root)
	if err != nil {
		return err
	}
	r.rootRaw = e.Signed
	if _, err := decode(r.newest, r.oldRoot); err != nil {
		return err
	}
	if e, err = decode(c.Files[RoleSnapshot], r.snapshot); err != nil {
		return err
	}
	r.snapRaw = e.Signed
	var timestamp struct{ header }
	if _, err := decode(c.Files[RoleTimestamp], &timestamp); err != nil {
		return err
	}
	r.timestamp = timestamp.header
	for _, role := range slices.Sorted(maps.Keys(c.Files)) { // a parent before its children
		if role == RoleSnapshot || role == RoleTimestamp || strings.Count(role, "/") > 1 {
			continue // deeper delegations stay as they are
		}
		if err := r.loadTargets(role, c.Files[role]); err != nil {
			return err
		}
	}
	return nil
}

// loadTargets decodes targets.json or the file of a delegation. Of a file that its keys have not
// signed, only the version is used: the next one must be higher.
func (r *Repository) loadTargets(role string, raw []byte) error {
	t := newTargets()
	e, err := decode(raw, t)
	if err != nil {
		if _, rejected := r.rejected[role]; rejected {
			return nil
		}
		return fmt.Errorf("%s: %w", role, err)
	}
	entry := &targetsEntry{targetsFile: t, raw: e.Signed}
	// The signatures of a removed delegation must not count again under a new one.
	if _, rejected := r.rejected[role]; rejected || isDelegation(role) && r.delegation(role) == nil {
		empty := newTargets()
		empty.Version = t.Version
		entry = &targetsEntry{targetsFile: empty}
	}
	r.files[role] = entry
	return nil
}

// delegation returns the delegation of a role that targets.json lists, or nil.
func (r *Repository) delegation(role string) *delegation {
	if entry := r.files[RoleTargets]; entry != nil {
		return entry.find(role)
	}
	return nil
}

// delegations returns the delegations that targets.json lists, sorted by name.
func (r *Repository) delegations() []*delegation {
	all := slices.Clone(r.files[RoleTargets].Delegations.Roles)
	slices.SortFunc(all, func(a, b *delegation) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// edit returns the file of targets or a delegation for a change, with a new version and expiry.
func (r *Repository) edit(role string) *targetsEntry {
	entry := r.files[role]
	if entry == nil {
		entry = &targetsEntry{targetsFile: newTargets()}
		r.files[role] = entry
	}
	if !entry.changed {
		if entry.raw == nil && entry.Version > 0 {
			r.warn("the earlier signatures of %s did not count, and are dropped", role)
		}
		delete(r.rejected, role)
		if entry.raw != nil && !r.at.Before(entry.Expires) && len(entry.Targets) > 0 {
			r.warn("%s expired at %s; signing it anew makes its %d tags count again", role,
				entry.Expires.UTC().Format(time.RFC3339), len(entry.Targets))
		}
		entry.changed = true
		entry.Version++
		entry.Expires = r.at.Add(defaultLifetime)
	}
	return entry
}

// editRoot is edit for the root.
func (r *Repository) editRoot() *rootFile {
	if !r.rootChanged {
		r.rootChanged = true
		r.root.Version++
		r.root.Expires = r.at.Add(rootLifetime)
	}
	return r.root
}

// note records a change for Changes.
func (r *Repository) note(format string, args ...any) {
	r.changes = append(r.changes, fmt.Sprintf(format, args...))
}

func (r *Repository) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// Changes returns what Publish will change, in sentences for the user.
func (r *Repository) Changes() []string { return r.changes }

// Warnings returns what the user should know.
func (r *Repository) Warnings() []string { return r.warnings }

// Close overwrites the private keys in memory.
func (r *Repository) Close() {
	for _, s := range r.unlocked {
		s.Close()
	}
	for _, s := range r.created {
		s.Close()
	}
}
