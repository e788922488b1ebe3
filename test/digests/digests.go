// Package digests is a format for tests. It signs digests, and resolves tags at the image's
// registry. It verifies nothing: a test sets the responses of the registries. It uses the packages
// above it like a real format of this kind.
package digests

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Registries is the content of all registries, and a trust.Root that fetches from them. The zero
// value is empty. It is safe for concurrent use.
type Registries struct {
	mu      sync.Mutex
	tags    map[string]string       // digest, by repository:tag
	roles   map[string][]string     // roles, by digest
	faults  map[string]*trust.Fault // by host
	fetched []string                // subjects since the last call of Fetched
	// Remaps is the identity remapping of the Root.
	Remaps trust.Remaps
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

// Subject implements trust.Root. The subject has the digest of the image, or its tag if it has no
// digest.
func (r *Registries) Subject(image imageref.Ref) trust.Subject {
	about := trust.Subject{Repository: r.Remaps.Signed(image), Pulled: image.Name()}
	if image.Digest != "" {
		about.Digest = image.Digest
	} else {
		about.Tag = image.Tag
	}
	return about
}

// Host implements trust.Root: the registry that the image is pulled from.
func (*Registries) Host(about trust.Subject) string {
	host, _, _ := strings.Cut(about.Pulled, "/")
	return host
}

// Probe implements trust.Root.
func (r *Registries) Probe(_ context.Context, host string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fault := r.faults[host]
	if fault == nil {
		return nil // an untyped nil: a nil *trust.Fault would be a non-nil error
	}
	return fault
}

// Fetch implements trust.Root.
func (r *Registries) Fetch(_ context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetched = append(r.fetched, about.String())
	if fault := r.faults[r.Host(about)]; fault != nil {
		return nil, fault
	}
	next := &Evidence{Means: r.tags[about.Pulled+":"+about.Tag]}
	if about.Digest != "" {
		next = &Evidence{Digest: about.Digest, Roles: r.roles[about.Digest]}
	}
	switch have, ok := held.(*Evidence); {
	case ok && have.Means == next.Means && have.Digest == next.Digest && slices.Equal(have.Roles, next.Roles):
		return held, nil
	case next.Means == "" && len(next.Roles) == 0:
		return trust.Unsigned{}, nil
	}
	return next, nil
}

// Recheck implements trust.Root.
func (*Registries) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	return held, nil
}

// record is one subject in the output of Pack.
type record struct {
	About trust.Subject
	Evidence
}

// Pack implements trust.Keeper.
func (*Registries) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	var all []record
	for _, about := range slices.SortedFunc(maps.Keys(held),
		func(a, b trust.Subject) int { return strings.Compare(a.String(), b.String()) }) {
		if evidence, ok := held[about].(*Evidence); ok {
			all = append(all, record{about, *evidence})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}

// Unpack implements trust.Keeper.
func (*Registries) Unpack(_ trust.Subject, packed []byte,
	held map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence, error) {
	var all []record
	if err := json.Unmarshal(packed, &all); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "decoding the record: %w", err)
	}
	found := map[trust.Subject]trust.Evidence{}
	for _, one := range all {
		found[one.About] = &one.Evidence
		if held[one.About] != nil {
			found[one.About] = held[one.About] // at least as new as the record
		}
	}
	return found, nil
}

// Evidence is a registry's response about a tag or a digest.
type Evidence struct {
	trust.Unsigned `json:"-"`

	// Means is the digest of a tag.
	Means string
	// Digest and Roles are about a digest: the roles that have signed it.
	Digest string
	Roles  []string
}

// Hints implements trust.Evidence.
func (e *Evidence) Hints(string) []string {
	if e.Means == "" {
		return nil
	}
	return []string{e.Means}
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

// Expiry implements trust.Evidence. The evidence never expires.
func (*Evidence) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }
