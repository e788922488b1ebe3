// Package digests is a format for tests, which signs digests. It is built of the same parts as a
// real one: bydigest.Root with the answers about tags and the records.
//
// Registries holds the registries in memory, for tests of the packages that know no registry.
// Referrers reads a real registry: a signature there is a referrer of the image that names a role.
// Neither verifies anything.
package digests

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// Registries is the content of all registries, and a trust.Root that fetches from them. The zero
// value is empty. It is safe for concurrent use.
type Registries struct {
	// Remaps is the identity remapping of the Root.
	Remaps trust.Remaps
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Interval is for how long an answer about a tag counts; zero: an hour.
	Interval time.Duration
	// Always makes each decision send a request, as an interval of 0s does.
	Always bool

	mu      sync.Mutex
	tags    map[string]string       // digest, by repository:tag
	roles   map[string][]string     // roles, by digest
	faults  map[string]*trust.Fault // by host
	fetched []string                // subjects since the last call of Fetched
}

var (
	_ trust.Root   = (*Registries)(nil)
	_ trust.Keeper = (*Registries)(nil)
)

// Tag sets the digest of a tag.
func (r *Registries) Tag(repository, tag, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tags == nil {
		r.tags = map[string]string{}
	}
	r.tags[repository+":"+tag] = digest
}

// Sign sets the roles that have signed a digest.
func (r *Registries) Sign(digest string, roles ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.roles == nil {
		r.roles = map[string][]string{}
	}
	r.roles[digest] = slices.Sorted(slices.Values(roles))
}

// Fail makes every request to a host fail with a fault. With nil, requests succeed again.
func (r *Registries) Fail(host string, fault *trust.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults == nil {
		r.faults = map[string]*trust.Fault{}
	}
	r.faults[host] = fault
}

// Fetched returns the subjects that were fetched since the last call, sorted.
func (r *Registries) Fetched() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	fetched := r.fetched
	r.fetched = nil
	slices.Sort(fetched)
	return fetched
}

// root returns the Root over the content.
func (r *Registries) root() *bydigest.Root {
	root := &bydigest.Root{
		Registry: inMemory{r}, Verifier: verifier{source: inMemory{r}}, Interval: r.Interval, Now: r.Now,
		Remaps: r.Remaps,
	}
	switch {
	case r.Always:
		root.Interval = 0
	case root.Interval == 0:
		root.Interval = time.Hour
	}
	if root.Now == nil {
		root.Now = time.Now
	}
	return root
}

// Subject implements trust.Root.
func (r *Registries) Subject(image imageref.Ref) trust.Subject { return r.root().Subject(image) }

// Host implements trust.Root.
func (r *Registries) Host(about trust.Subject) string { return r.root().Host(about) }

// Probe implements trust.Root.
func (r *Registries) Probe(ctx context.Context, host string) error { return r.root().Probe(ctx, host) }

// Fetch implements trust.Root.
func (r *Registries) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	r.mu.Lock()
	r.fetched = append(r.fetched, about.String())
	r.mu.Unlock()
	return r.root().Fetch(ctx, about, held)
}

// Recheck implements trust.Root.
func (r *Registries) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	return r.root().Recheck(about, held)
}

// Pack implements trust.Keeper.
func (r *Registries) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	return r.root().Pack(held)
}

// Unpack implements trust.Keeper.
func (r *Registries) Unpack(repository trust.Subject, packed []byte,
	held map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence, error) {
	return r.root().Unpack(repository, packed, held)
}

// inMemory is the content of Registries as a registry.
type inMemory struct{ *Registries }

// Probe implements bydigest.Registry.
func (r inMemory) Probe(_ context.Context, host string) error { return r.fault(host) }

// fault returns the fault of a host as an error.
func (r inMemory) fault(host string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fault := r.faults[host]
	if fault == nil {
		return nil // an untyped nil: a nil *trust.Fault would be a non-nil error
	}
	return fault
}

// Resolve implements bydigest.Registry.
func (r inMemory) Resolve(_ context.Context, repository, tag string) (string, error) {
	if err := r.fault(r.Host(trust.Subject{Pulled: repository})); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	digest, ok := r.tags[repository+":"+tag]
	if !ok {
		return "", &trust.NotFound{Code: "MANIFEST_UNKNOWN"}
	}
	return digest, nil
}

func (r inMemory) signedBy(_ context.Context, about trust.Subject) ([]string, error) {
	if err := r.fault(r.Host(about)); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roles[about.Digest], nil
}

// source knows which roles have signed a digest, sorted.
type source interface {
	signedBy(ctx context.Context, about trust.Subject) (roles []string, err error)
}

// verifier is the bydigest.Verifier of the format.
type verifier struct{ source source }

// Fetch implements bydigest.Verifier.
func (v verifier) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	roles, err := v.source.signedBy(ctx, about)
	if err != nil {
		return nil, err
	}
	if have, ok := held.(*Evidence); ok && slices.Equal(have.Roles, roles) {
		return held, nil
	}
	if len(roles) == 0 {
		return trust.Unsigned{}, nil
	}
	return &Evidence{Digest: about.Digest, Roles: roles}, nil
}

// Recheck implements bydigest.Verifier.
func (verifier) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	return held, nil
}

// Pack implements bydigest.Verifier.
func (verifier) Pack(held trust.Evidence) ([]byte, error) { return json.Marshal(held) }

// Unpack implements bydigest.Verifier.
func (verifier) Unpack(about trust.Subject, packed []byte, held trust.Evidence) (trust.Evidence, error) {
	if held != nil {
		return held, nil // at least as new as the record
	}
	read := &Evidence{}
	if err := json.Unmarshal(packed, read); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: decoding the record: %w", about, err)
	}
	return read, nil
}

// Evidence says which roles have signed a digest.
type Evidence struct {
	trust.Unsigned `json:"-"`

	Digest string
	Roles  []string
}

// Statements implements trust.Evidence.
func (e *Evidence) Statements(_, digest string) []trust.Statement {
	if digest != "" && digest != e.Digest {
		return nil
	}
	all := make([]trust.Statement, 0, len(e.Roles))
	for _, role := range e.Roles {
		all = append(all, trust.Statement{Digest: e.Digest, Role: role})
	}
	return all
}

// Signed implements trust.Evidence.
func (e *Evidence) Signed() bool { return len(e.Roles) > 0 }

// Size implements trust.Sized.
func (*Evidence) Size() int64 { return 1 }
