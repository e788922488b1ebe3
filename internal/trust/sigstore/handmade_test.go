package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// signer is a key pair.
type signer struct {
	signature.Signer
	pem, id string
}

// newSigner returns a key pair on P-256.
func newSigner(t testing.TB) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, s)
}

// signerOf returns the key pair of a signer.
func signerOf(t testing.TB, s signature.Signer) signer {
	t.Helper()
	public, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	k, err := parseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return signer{Signer: s, pem: text, id: k.id}
}

// sign returns the base64 of a signature over a message.
func (s signer) sign(t testing.TB, message []byte) string {
	t.Helper()
	sig, err := s.SignMessage(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// payload returns a simple signing payload.
func payload(kind, repository, digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":%q},"optional":null}`, repository, digest, kind)
}

// layerOf returns a layer of the tag layout.
func layerOf(content []byte, sig, mediaType string) mutate.Addendum {
	return mutate.Addendum{
		Layer:       static.NewLayer(content, types.MediaType(mediaType)),
		MediaType:   types.MediaType(mediaType),
		Annotations: map[string]string{annotationSignature: sig},
	}
}

// statementOf returns cosign's statement about digests, or an attestation of another type.
func statementOf(predicateType string, digests ...string) []byte {
	var subjects []any
	for _, digest := range digests {
		subjects = append(subjects, map[string]any{
			"digest": map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")},
		})
	}
	text, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "subject": subjects,
		"predicate": map[string]any{},
	})
	if err != nil {
		panic(err)
	}
	return text
}

// envelope returns a bundle with a statement.
func envelope(t testing.TB, by signer, mediaType string, content []byte) []byte {
	t.Helper()
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(content), content)
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":`+
		`{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`, mediaType,
		base64.StdEncoding.EncodeToString(content), statementType, by.sign(t, pae))
}

// registryBed is a registry with one image after another.
type registryBed struct {
	*registryserver.Server
	t      testing.TB
	images int
}

func newRegistryBed(t testing.TB) *registryBed {
	t.Helper()
	return &registryBed{Server: registryserver.Run(t), t: t}
}

func (b *registryBed) settings() []v1alpha1.Registry {
	return []v1alpha1.Registry{{Host: b.Host, CABundle: v1alpha1.RegistryCABundle(b.CA.PEM)}}
}

func (b *registryBed) ref(path string) name.Repository {
	b.t.Helper()
	repository, err := name.NewRepository(b.Host + "/" + path)
	if err != nil {
		b.t.Fatal(err)
	}
	return repository
}

// image is an image that was pushed.
type image struct {
	name.Digest
	manifest []byte
}

func (b *registryBed) push() image {
	b.t.Helper()
	b.images++
	pushed, err := random.Image(64, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	digest, err := pushed.Digest()
	if err != nil {
		b.t.Fatal(err)
	}
	raw, err := pushed.RawManifest()
	if err != nil {
		b.t.Fatal(err)
	}
	ref := b.ref("acme/app").Digest(digest.String())
	if err := remote.Write(ref, pushed, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
	return image{Digest: ref, manifest: raw}
}

// tagged pushes signatures in the tag layout.
func (b *registryBed) tagged(on image, layers ...mutate.Addendum) {
	b.t.Helper()
	signatures, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		b.t.Fatal(err)
	}
	tag := on.Context().Tag(strings.Replace(on.DigestStr(), ":", "-", 1) + ".sig")
	if err := remote.Write(tag, signatures, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
}

// bundle pushes a bundle that refers to an image.
func (b *registryBed) bundle(on image, mediaType string, content []byte) {
	b.t.Helper()
	b.bundleOf(on, mediaType, content, nil)
}

// bundleOf is bundle with annotations of the layer.
func (b *registryBed) bundleOf(on image, mediaType string, content []byte, annotations map[string]string) {
	b.t.Helper()
	subject, err := remote.Head(on.Digest, b.Options(b.t.Context())...)
	if err != nil {
		b.t.Fatal(err)
	}
	base, err := mutate.Append(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), emptyConfig),
		mutate.Addendum{
			Layer: static.NewLayer(content, types.MediaType(mediaType)), MediaType: types.MediaType(mediaType),
			Annotations: annotations,
		})
	if err != nil {
		b.t.Fatal(err)
	}
	referrer := mutate.Subject(base, *subject).(v1.Image)
	digest, err := referrer.Digest()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := remote.Write(on.Context().Digest(digest.String()), referrer, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
}

// whys returns what the evidence says of signatures that do not count.
func whys(e trust.Evidence, roles ...string) string {
	var all []string
	for _, r := range e.Rejected(roles, "", "") {
		all = append(all, r.By+" | "+r.Why)
	}
	return strings.Join(all, "\n")
}
