package inspection

import (
	"time"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

// shorten returns a digest as messages show it: the algorithm and eight digits.
func shorten(digest string) string { return text.Cut(digest, len("sha256:")+8+len("...")) }

// signaturesIn returns the signatures on an image in evidence that have not expired.
func signaturesIn(evidence trust.Evidence, root, format, tag, digest string, now time.Time) []Signature {
	var all []Signature
	for _, s := range evidence.Statements(tag, digest) {
		if !s.NotAfter.IsZero() && !s.NotAfter.After(now) {
			continue
		}
		signature := Signature{Role: s.Role, TrustRoot: root, Format: format, Keys: make([]Key, 0, len(s.Keys))}
		for _, id := range s.Keys {
			signature.Keys = append(signature.Keys, Key{ID: id})
		}
		if !s.NotAfter.IsZero() {
			signature.NotAfter = &s.NotAfter
		}
		all = append(all, signature)
	}
	return all
}

// Known returns the signatures on an image with a tag and a digest that a snapshot has already,
// under any of its trust roots. It fetches nothing.
func Known(snapshot *store.Snapshot, image imageref.Ref, namespace string, now time.Time) []Signature {
	var all []Signature
	for _, root := range snapshot.RootNames() {
		if snapshot.Usable(root) != nil {
			continue
		}
		k := trust.Key{Root: root, Subject: snapshot.Subject(root, image)}
		evidence, _, err := snapshot.Evidence(k)
		if instead, ok := snapshot.Tenant(k, namespace); ok && err != nil {
			evidence, _, err = snapshot.Evidence(instead)
		}
		if err == nil {
			format := snapshot.Root(root).Format
			all = append(all, signaturesIn(evidence, root, format, image.Tag, image.Digest, now)...)
		}
	}
	return all
}
