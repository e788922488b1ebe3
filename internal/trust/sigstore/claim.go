package sigstore

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// The two values of critical.type: cosign's own, and that of the format it has its payload of.
	cosignType = "cosign container image signature"
	atomicType = "atomic container signature"

	// signPredicate is the type of the statement by which cosign signs an image in a bundle. A
	// statement of any other type is an attestation.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
	statementType = "application/vnd.in-toto+json"

	// maxValues bounds the JSON values of a payload and of a bundle, which have some dozens.
	maxValues = 16 << 10
	// maxShown bounds what messages show of a text from a registry, in bytes.
	maxShown = 100
)

// claim is what a signature says, before anyone's key has verified it.
type claim struct {
	// repository is the one that the signature names, empty where it names none.
	repository string
	// signedBy reports whether a key has made the signature, and over this image.
	signedBy func(*key) bool
}

// read returns the claim of a signature about an image. The error says why it is none, in the rest
// of a sentence that begins with the signature.
func (s *kept) read(digest string, manifest []byte) (*claim, error) {
	if s.Bundle != nil {
		return readBundle(s.Bundle, digest, manifest)
	}
	return readPayload(s.Payload, s.Signature, digest)
}

// readPayload reads a signature of the tag layout: a payload, and the base64 of the signature over
// it.
func readPayload(payload []byte, encoded, digest string) (*claim, error) {
	sig, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sig) == 0 {
		return nil, errors.New("has no readable signature in its annotation " + annotationSignature)
	}
	if n, ok := jsonscan.Count(payload, maxValues); !ok || n == maxValues {
		return nil, errors.New("has a payload that is not JSON, or is too large")
	}
	var p struct {
		Critical struct {
			Type     string `json:"type"`
			Identity struct {
				DockerReference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, errors.New("has a payload that is no simple signing payload")
	}
	if t := p.Critical.Type; t != cosignType && t != atomicType {
		return nil, fmt.Errorf("has a payload of the type %q, which is no image signature", shown(t))
	}
	if d := p.Critical.Image.Digest; d != digest {
		return nil, fmt.Errorf("is about another image, %s", shown(d))
	}
	return &claim{
		repository: p.Critical.Identity.DockerReference,
		signedBy:   func(k *key) bool { return k.signed(payload, sig) },
	}, nil
}

// readBundle reads a Sigstore bundle. manifest is the image's own, which a message signature signs.
func readBundle(data []byte, digest string, manifest []byte) (*claim, error) {
	if n, ok := jsonscan.Count(data, maxValues); !ok || n == maxValues {
		return nil, errors.New("is not JSON, or is too large")
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("is no Sigstore bundle of a version from 0.1 to 0.3: %s", shown(err.Error()))
	}
	content, err := b.SignatureContent()
	if err != nil {
		return nil, fmt.Errorf("has no readable content: %s", shown(err.Error()))
	}
	if envelope := content.EnvelopeContent(); envelope != nil {
		return readEnvelope(content, digest)
	}
	if manifest == nil {
		return nil, errNeedsManifest
	}
	return &claim{signedBy: func(k *key) bool {
		return verify.VerifySignatureWithArtifacts(content, byKey{}, &oneKey{key: k},
			[]io.Reader{bytes.NewReader(manifest)}) == nil
	}}, nil
}

// errNeedsManifest is the error of a signature over the image's manifest that is read without it.
var errNeedsManifest = errors.New("is a signature over the manifest of the image, which is missing")

// statement is what is read of an in-toto statement.
type statement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
}

// readEnvelope reads a bundle with a DSSE envelope: a signature where its statement is cosign's own
// about the image, and an attestation otherwise.
func readEnvelope(content verify.SignatureContent, digest string) (*claim, error) {
	raw := content.EnvelopeContent().RawEnvelope()
	if raw.PayloadType != statementType {
		return nil, fmt.Errorf("has a payload of the type %q, which is no statement", shown(raw.PayloadType))
	}
	payload, err := raw.DecodeB64Payload()
	if err != nil {
		return nil, errors.New("has a payload that is not base64")
	}
	if n, ok := jsonscan.Count(payload, maxValues); !ok || n == maxValues {
		return nil, errors.New("has a statement that is not JSON, or is too large")
	}
	var s statement
	if err := json.Unmarshal(payload, &s); err != nil || !strings.HasPrefix(s.Type, "https://in-toto.io/Statement/") {
		return nil, errors.New("has a payload that is no in-toto statement")
	}
	if s.PredicateType != signPredicate {
		return nil, fmt.Errorf("is an attestation (%s), which is no signature", shown(s.PredicateType))
	}
	algorithm, value, _ := strings.Cut(digest, ":")
	wanted, err := hex.DecodeString(value)
	if err != nil {
		return nil, err
	}
	repository, found := "", false
	for _, subject := range s.Subject { // a statement about several images speaks for each
		if subject.Digest[algorithm] == value {
			repository, found = subject.Name, true
			break
		}
	}
	if !found {
		return nil, errors.New("is about other images")
	}
	digests := []verify.ArtifactDigest{{Digest: wanted, Algorithm: algorithm}}
	return &claim{repository: repository, signedBy: func(k *key) bool {
		return verify.VerifySignatureWithArtifactDigests(content, byKey{}, &oneKey{key: k}, digests) == nil
	}}, nil
}

// byKey is the verification content of a bundle whose signature a given key is to verify. Neither
// the certificate nor the hint of the bundle counts.
type byKey struct{}

// CompareKey implements verify.VerificationContent.
func (byKey) CompareKey(any, root.TrustedMaterial) bool { return true }

// ValidAtTime implements verify.VerificationContent.
func (byKey) ValidAtTime(time.Time, root.TrustedMaterial) bool { return true }

// Certificate implements verify.VerificationContent: there is none.
func (byKey) Certificate() *x509.Certificate { return nil }

// Intermediates implements verify.VerificationContent: there are none.
func (byKey) Intermediates() []*x509.Certificate { return nil }

// PublicKey implements verify.VerificationContent.
func (byKey) PublicKey() verify.PublicKeyProvider { return anyHint{} }

// anyHint is the hint to the only key.
type anyHint struct{}

// Hint implements verify.PublicKeyProvider.
func (anyHint) Hint() string { return "" }

// names reports whether the repository that a signature names is one repository. Both are compared
// as a registry reads them.
func (c *claim) names(repository string) bool {
	if c.repository == "" {
		return false
	}
	named, err := imageref.Parse(c.repository)
	if err != nil {
		return false
	}
	wanted, err := imageref.Parse(repository)
	return err == nil && named.Repository() == wanted.Repository()
}

// shown returns a text from a registry for a message.
func shown(s string) string { return text.Cut(s, maxShown) }
