package sigstore

import (
	"encoding/json"
	"slices"

	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/attestation"
)

const (
	// maxAttested bounds the attestations on a digest that are read in each layout, and
	// maxAttestedBytes the bytes of all of them together.
	maxAttested      = 64
	maxAttestedBytes = 8 << 20
	// maxTransfers bounds the bytes of attestations that a trust root fetches at one time.
	maxTransfers = 4 * maxAttestedBytes

	// dsseEnvelope is the media type of an attestation of the tag layout.
	dsseEnvelope = "application/vnd.dsse.envelope.v1+json"
	// annotationType is the annotation with the type of its predicate, which nobody has signed.
	annotationType = "predicateType"
)

// attested is one attestation as the registry has it, so that it can be verified again. Without
// content it is what was found in the place of one: Why says why it is none.
type attested struct {
	Layout layout `json:"layout"`
	// ID is the digest by which the registry has it: of the manifest of a bundle, or of the
	// envelope in the tag layout.
	ID string `json:"id"`
	extras
	// Content is the compressed bundle or envelope, which has Size bytes.
	Content []byte `json:"content,omitempty"`
	Size    int64  `json:"size,omitempty"`
	// Why is the rest of a sentence that begins with the attestation.
	Why string `json:"why,omitempty"`
	shed
}

// same reports whether two entries are one attestation.
func (a *attested) same(other *attested) bool {
	return a.Layout == other.Layout && a.ID == other.ID && a.extras.same(&other.extras)
}

// attestations is what a registry has of the attestations on one digest. It is immutable.
type attestations struct {
	// Tag is the digest of the manifest of the tag layout, empty where there is none, or where it
	// was not read in full.
	Tag string     `json:"tag,omitempty"`
	All []attested `json:"all,omitempty"`
	// Types are the types of the predicates that were looked for.
	Types []string `json:"types,omitempty"`
	// Unread are the layouts of which some attestations are not known, so that the newest may be
	// among these.
	Unread []layout `json:"unread,omitempty"`
	// Judges are those that have judged what is not kept, empty where all is. With others the
	// newest may be missing.
	Judges string `json:"judges,omitempty"`
}

// noAttestations returns a list for which nothing was looked for.
func noAttestations() *attestations { return &attestations{} }

// same reports whether two lists have the same attestations, in any order.
func (a *attestations) same(other *attestations) bool {
	return a.Tag == other.Tag && len(a.All) == len(other.All) && slices.Equal(a.Unread, other.Unread) &&
		slices.Equal(a.Types, other.Types) &&
		a.Judges == other.Judges &&
		!slices.ContainsFunc(a.All, func(one attested) bool { return other.find(&one) == nil })
}

// covers reports whether attestations of all of some types were looked for.
func (a *attestations) covers(types []string) bool {
	return !slices.ContainsFunc(types, func(t string) bool { return !slices.Contains(a.Types, t) })
}

// find returns the entry that is the same as another. Nil: there is none.
func (a *attestations) find(one *attested) *attested {
	for i := range a.All {
		if a.All[i].same(one) {
			return &a.All[i]
		}
	}
	return nil
}

// size is about how much memory the list takes up, in bytes.
func (a *attestations) size() int64 {
	var size int64
	for i := range a.All {
		one := &a.All[i]
		size += int64(len(one.Content)+len(one.ID)+len(one.Why)) + int64(one.bytes()) + 200
	}
	return size
}

// expand returns the bundle or envelope.
func (a *attested) expand() ([]byte, error) { return bydigest.Uncompress(a.Content, a.Size) }

// attests reports whether a bundle has an attestation of one of some types.
func attests(data []byte, types []string) bool {
	var b struct {
		DSSEEnvelope *struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
		} `json:"dsseEnvelope"`
	}
	if json.Unmarshal(data, &b) != nil || b.DSSEEnvelope == nil ||
		b.DSSEEnvelope.PayloadType != attestation.PayloadType {
		return false
	}
	return slices.ContainsFunc(types, func(t string) bool {
		return attestation.TypeOf(b.DSSEEnvelope.Payload, t) == t
	})
}
