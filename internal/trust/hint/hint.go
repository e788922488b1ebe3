// Package hint stores the answers of image registries about tags, for the formats that sign
// digests.
//
// An answer is a hint: it says which digest a tag may mean, and proves nothing. The digest has to
// be signed all the same. The package promises that an answer carries the time at which the
// registry gave it, that it counts from then and no longer than an interval, and that an older one
// stands in only where the registry could not be asked, for a day at most.
package hint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// mostStale is for how long an older answer counts if the registry cannot be reached.
	mostStale = 24 * time.Hour
	// recordedEvery is how exactly records keep the time of an answer, so that the same answer does
	// not write them again at each interval.
	recordedEvery = time.Hour
)

// Resolver queries registries: *registry.Images.
type Resolver interface {
	// Resolve returns the digest of a tag. The error is trust.ErrNotFound or a *trust.Fault.
	Resolve(ctx context.Context, repository, tag string) (digest string, err error)
}

// Tags fetches the answers about tags.
type Tags struct {
	Resolver Resolver
	// Interval is for how long an answer counts. Zero: each decision sends a request.
	Interval time.Duration
	Now      func() time.Time
}

// Evidence is one answer.
type Evidence struct {
	trust.Unsigned

	digests  []string // one; none: the registry has no such tag
	tag      string
	given    time.Time
	interval time.Duration
}

var (
	_ trust.Evidence = (*Evidence)(nil)
	_ trust.Answer   = (*Evidence)(nil)
	_ trust.Sized    = (*Evidence)(nil)
)

// Fetch requests the digest of a tag from its registry. If that fails, held stays usable until its
// own time. The error is a *trust.Fault.
func (t Tags) Fetch(ctx context.Context, about trust.Subject, _ trust.Evidence) (trust.Evidence, error) {
	given := t.Now() // of the request, so that the answer is no older than it says
	digest, err := t.Resolver.Resolve(ctx, about.Pulled, about.Tag)
	if err != nil && !errors.Is(err, trust.ErrNotFound) {
		return nil, trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer) // not a reason to use an older answer
	}
	return t.answer(about.Tag, digest, given), nil
}

func (t Tags) answer(tag, digest string, given time.Time) *Evidence {
	e := &Evidence{tag: tag, given: given, interval: t.Interval}
	if digest != "" {
		e.digests = []string{digest}
	}
	return e
}

// Recheck returns an answer that another Tags obtained, with the interval of this one.
func (t Tags) Recheck(held *Evidence) *Evidence {
	next := *held
	next.interval = t.Interval
	return &next
}

// Hints implements trust.Evidence.
func (e *Evidence) Hints(string) []string { return e.digests }

// digest is empty where the registry has no such tag.
func (e *Evidence) digest() string {
	if len(e.digests) == 0 {
		return ""
	}
	return e.digests[0]
}

// Rejected implements trust.Evidence: it says that the registry has no such tag.
func (e *Evidence) Rejected(roles []string, _, _ string) []trust.Rejection {
	if len(e.digests) > 0 || len(roles) == 0 {
		return nil
	}
	return []trust.Rejection{{By: "the registry", Why: fmt.Sprintf("has no tag %q", e.tag)}}
}

// Fresh implements trust.Answer.
func (e *Evidence) Fresh() time.Time { return e.given.Add(e.interval) }

// Given implements trust.Answer.
func (e *Evidence) Given() time.Time { return e.given }

// Usable implements trust.Answer. An answer that there is no such tag stands in for nothing.
func (e *Evidence) Usable() time.Time {
	if e.interval == 0 || len(e.digests) == 0 {
		return e.Fresh()
	}
	return e.given.Add(mostStale)
}

// Ends implements trust.Answer. It does not depend on the interval: the report of what runs would
// otherwise change between two refreshes.
func (e *Evidence) Ends() time.Time { return e.given.Add(mostStale) }

// Size implements trust.Sized.
func (e *Evidence) Size() int64 { return int64(len(e.digest())+len(e.tag)) + 128 }

// record is an answer as records keep it.
type record struct {
	Digest string    `json:"digest"`
	Given  time.Time `json:"given"`
}

// MarshalJSON returns the answer for a record. Its time is rounded down to the hour.
func (e *Evidence) MarshalJSON() ([]byte, error) {
	return json.Marshal(record{Digest: e.digest(), Given: e.given.UTC().Truncate(recordedEvery)})
}

// Read returns the answer that a record keeps of a tag. An answer from the future counts from now.
func (t Tags) Read(tag string, data []byte) (*Evidence, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "the recorded answer for the tag %s: %w", tag, err)
	}
	if !imageref.ValidDigest(r.Digest) {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"the recorded answer for the tag %s has no digest", tag)
	}
	if now := t.Now(); r.Given.After(now) {
		r.Given = now
	}
	return t.answer(tag, r.Digest, r.Given), nil
}

// Newer returns the later of two answers, of which either may be nil.
func Newer(a, b *Evidence) *Evidence {
	if a == nil || b != nil && cmp.Compare(b.given.UnixNano(), a.given.UnixNano()) > 0 {
		return b
	}
	return a
}
