package sigstore

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

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
	// signature is the signature itself, and content what a log entry says of what was signed, with
	// a hash by its name there.
	signature []byte
	content   func(hash string) (verify.SignatureContent, error)
	// material is what the signature came with.
	material *material
}

// read returns the claim of a signature about an image. The error says why it is none, in the rest
// of a sentence that begins with the signature.
func (s *kept) read(digest string, manifest []byte) (*claim, error) {
	if s.Bundle != nil {
		return readBundle(s.Bundle, digest, manifest)
	}
	c, err := readPayload(s.Payload, s.Signature, digest)
	if err == nil {
		c.material = s.material()
	}
	return c, err
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
		signature:  sig,
		content:    func(hash string) (verify.SignatureContent, error) { return contentOf(payload, sig, hash) },
	}, nil
}

// contentOf returns a signature over a payload, as an entry of a transparency log has it.
func contentOf(payload, sig []byte, hash string) (verify.SignatureContent, error) {
	var sum []byte
	switch hash {
	case "sha256", "SHA2_256":
		sum256 := sha256.Sum256(payload)
		sum = sum256[:]
	case "sha384", "SHA2_384":
		sum384 := sha512.Sum384(payload)
		sum = sum384[:]
	case "sha512", "SHA2_512":
		sum512 := sha512.Sum512(payload)
		sum = sum512[:]
	default:
		return nil, fmt.Errorf("it has the unknown hash %q", shown(hash))
	}
	return bundle.NewMessageSignature(sum, hash, sig), nil
}

// readBundle reads a Sigstore bundle. manifest is the image's own, which a message signature signs.
func readBundle(data []byte, digest string, manifest []byte) (*claim, error) {
	if n, ok := jsonscan.Count(data, maxValues); !ok || n == maxValues {
		return nil, errors.New("is not JSON, or is too large")
	}
	b, m, err := parseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("is no Sigstore bundle of a version from 0.1 to 0.3: %s", shown(err.Error()))
	}
	content, err := b.SignatureContent()
	if err != nil {
		return nil, fmt.Errorf("has no readable content: %s", shown(err.Error()))
	}
	c := &claim{
		signature: content.Signature(), material: m,
		content: func(string) (verify.SignatureContent, error) { return content, nil },
	}
	if envelope := content.EnvelopeContent(); envelope != nil {
		if err := c.readEnvelope(content, digest); err != nil {
			return nil, err
		}
		return c, nil
	}
	if manifest == nil {
		return nil, errNeedsManifest
	}
	c.signedBy = func(k *key) bool {
		return verify.VerifySignatureWithArtifacts(content, byKey{}, keyOnly(k),
			[]io.Reader{bytes.NewReader(manifest)}) == nil
	}
	return c, nil
}

// parseBundle parses a bundle. The log entries are not parsed: one that is not valid must not be
// taken for a bundle that cannot be read.
func parseBundle(data []byte) (*bundle.Bundle, *material, error) {
	parsed := &protobundle.Bundle{}
	if err := protojson.Unmarshal(data, parsed); err != nil {
		return nil, nil, err
	}
	var entries []*protorekor.TransparencyLogEntry
	if m := parsed.GetVerificationMaterial(); m != nil {
		entries, m.TlogEntries = m.GetTlogEntries(), nil
	}
	b, err := bundle.NewBundle(parsed)
	if err != nil {
		return nil, nil, err
	}
	return b, bundleMaterial(parsed.GetVerificationMaterial(), entries, b.MinVersion("0.2")), nil
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
func (c *claim) readEnvelope(content verify.SignatureContent, digest string) error {
	raw := content.EnvelopeContent().RawEnvelope()
	if raw.PayloadType != statementType {
		return fmt.Errorf("has a payload of the type %q, which is no statement", shown(raw.PayloadType))
	}
	payload, err := raw.DecodeB64Payload()
	if err != nil {
		return errors.New("has a payload that is not base64")
	}
	if n, ok := jsonscan.Count(payload, maxValues); !ok || n == maxValues {
		return errors.New("has a statement that is not JSON, or is too large")
	}
	var s statement
	if err := json.Unmarshal(payload, &s); err != nil || !strings.HasPrefix(s.Type, "https://in-toto.io/Statement/") {
		return errors.New("has a payload that is no in-toto statement")
	}
	if s.PredicateType != signPredicate {
		return fmt.Errorf("is an attestation (%s), which is no signature", shown(s.PredicateType))
	}
	algorithm, value, _ := strings.Cut(digest, ":")
	wanted, err := hex.DecodeString(value)
	if err != nil {
		return err
	}
	repository, found := "", false
	for _, subject := range s.Subject { // a statement about several images speaks for each
		if subject.Digest[algorithm] == value {
			repository, found = subject.Name, true
			break
		}
	}
	if !found {
		return errors.New("is about other images")
	}
	digests := []verify.ArtifactDigest{{Digest: wanted, Algorithm: algorithm}}
	c.repository, c.signedBy = repository, func(k *key) bool {
		return verify.VerifySignatureWithArtifactDigests(content, byKey{}, keyOnly(k), digests) == nil
	}
	return nil
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
