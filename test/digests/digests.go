// Package digests is a format for tests that signs digests whatever the tag, and takes what a tag
// means from the image's registry. It verifies nothing: a test says what registries answer. What a
// real format of its kind asks of the packages above it, it asks of them.
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

// Registries are all registries that there are, and a Root that asks them. Its zero value is empty.
// It is safe for concurrent use.
type Registries struct {
	mu     sync.Mutex
	tags   map[string]string   // digests by repository:tag
	roles  map[string][]string // roles by digest
	faults map[string]*trust.Fault
	asked  []string
	// Remaps are the identity remapping of the Root.
	Remaps trust.Remaps
}

var (
	_ trust.Root   = (*Registries)(nil)
	_ trust.Keeper = (*Registries)(nil)
)

// Tag has a tag mean a digest.
func (r *Registries) Tag(repository, tag, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tags == nil {
		r.tags = map[string]string{}
	}
	r.tags[repository+":"+tag] = digest
}

// Sign has roles sign a digest, in place of those that did before.
func (r *Registries) Sign(digest string, roles ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.roles == nil {
		r.roles = map[string][]string{}
	}
	r.roles[digest] = slices.Sorted(slices.Values(roles))
}

// Fail has a host answer everything with a fault; nil ends that.
func (r *Registries) Fail(host string, fault *trust.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults == nil {
		r.faults = map[string]*trust.Fault{}
	}
	r.faults[host] = fault
}

// Asked returns the subjects that were asked about since the last call, sorted.
func (r *Registries) Asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	slices.Sort(asked)
	return asked
}

// Subject implements trust.Root: the tag of an image without a digest, or else the digest.
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
		return nil // and no *trust.Fault that is nil
	}
	return fault
}

// Fetch implements trust.Root.
func (r *Registries) Fetch(_ context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, about.String())
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

// record is one subject of what Pack writes.
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
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "what was written down: %w", err)
	}
	found := map[trust.Subject]trust.Evidence{}
	for _, one := range all {
		found[one.About] = &one.Evidence
		if held[one.About] != nil {
			found[one.About] = held[one.About] // as new as what was written down
		}
	}
	return found, nil
}

// Evidence is what a registry answers about a tag, which is what it means, or about a digest, which
// is who has signed it.
type Evidence struct {
	trust.Unsigned `json:"-"`

	Means  string
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

// Expiry implements trust.Evidence: nothing expires.
func (*Evidence) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }
