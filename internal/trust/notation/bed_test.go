package notation

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// mediaTypes are the envelopes.
func mediaTypes() map[string]string {
	return map[string]string{"JWS": jws.MediaTypeEnvelope, "COSE": cose.MediaTypeEnvelope}
}

// bed is a registry with one image after another, a clock, and the format.
type bed struct {
	*registryserver.Server

	t      *testing.T
	now    time.Time
	format *Format
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{Server: registryserver.Run(t), t: t, now: epoch}
	b.restart()
	return b
}

// restart forgets what was answered about revocation.
func (b *bed) restart() { b.format = &Format{Clock: func() time.Time { return b.now }} }

// caRole returns a role that every certificate of these CAs, or those with these subjects, may sign
// for.
func caRole(role string, threshold int, cas []*certificate, subjects ...string) v1alpha1.NotationRole {
	r := v1alpha1.NotationRole{Name: v1alpha1.RoleName(role), Threshold: int32(threshold)}
	for _, ca := range cas {
		r.Certificates = append(r.Certificates, v1alpha1.PEM(ca.pem()))
	}
	if len(subjects) == 0 {
		subjects = []string{"*"}
	}
	for _, s := range subjects {
		r.Identities = append(r.Identities, v1alpha1.CertificateSubject(s))
	}
	return r
}

// trustRoot returns a TrustRoot of the format.
func (b *bed) trustRoot(roles ...v1alpha1.NotationRole) *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme-notation"},
		Spec: v1alpha1.TrustRootSpec{
			Registries: []v1alpha1.Registry{{Host: b.Host, CABundle: v1alpha1.RegistryCABundle(b.CA.PEM)}},
			Notation:   &v1alpha1.NotationSpec{Roles: roles},
		},
	}
}

// build compiles a TrustRoot.
func (b *bed) build(tr *v1alpha1.TrustRoot) *Root {
	b.t.Helper()
	root, err := b.format.Build(tr, trust.Material{})
	if err != nil {
		b.t.Fatal(err)
	}
	return root.(*Root)
}

// image is an image that was pushed.
type image struct{ name.Digest }

func (b *bed) push() image {
	b.t.Helper()
	pushed, err := random.Image(64, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	digest, err := pushed.Digest()
	if err != nil {
		b.t.Fatal(err)
	}
	repository, err := name.NewRepository(b.Host + "/acme/app")
	if err != nil {
		b.t.Fatal(err)
	}
	ref := repository.Digest(digest.String())
	if err := remote.Write(ref, pushed, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
	return image{ref}
}

// request returns the request for a signature about a digest by a certificate.
func request(t *testing.T, by *certificate, digest string) *signature.SignRequest {
	t.Helper()
	signer, err := signature.NewLocalSigner(by.chain(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]any{"targetArtifact": map[string]any{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &signature.SignRequest{
		Payload: signature.Payload{ContentType: payloadType, Content: payload}, Signer: signer, SigningTime: epoch,
		SigningScheme: signature.SigningSchemeX509, SigningAgent: "test",
	}
}

// envelope returns the envelope for a request.
func envelope(t *testing.T, mediaType string, req *signature.SignRequest) []byte {
	t.Helper()
	e, err := signature.NewEnvelope(mediaType)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Sign(req)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// signed returns a JWS signature about a digest by a certificate.
func signed(t *testing.T, by *certificate, digest string) []byte {
	t.Helper()
	return envelope(t, jws.MediaTypeEnvelope, request(t, by, digest))
}

// editHeader changes what is not signed of a JWS envelope: its chain, its timestamp.
func editHeader(t *testing.T, raw []byte, edit func(header map[string]any, signature string)) []byte {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(raw, &whole); err != nil {
		t.Fatal(err)
	}
	edit(whole["header"].(map[string]any), whole["signature"].(string))
	raw, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// withChain replaces the chain of a JWS envelope.
func withChain(t *testing.T, raw []byte, chain ...*x509.Certificate) []byte {
	t.Helper()
	ders := make([][]byte, len(chain))
	for i, cert := range chain {
		ders[i] = cert.Raw
	}
	return editHeader(t, raw, func(header map[string]any, _ string) { header["x5c"] = ders })
}

// attach pushes a signature that refers to an image.
func (b *bed) attach(on image, mediaType string, content []byte) {
	b.t.Helper()
	b.attachLayers(on, static.NewLayer(content, types.MediaType(mediaType)))
}

// attachLayers pushes a manifest with layers that refers to an image.
func (b *bed) attachLayers(on image, layers ...v1.Layer) {
	b.t.Helper()
	subject, err := remote.Head(on.Digest, b.Options(b.t.Context())...)
	if err != nil {
		b.t.Fatal(err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), artifactType)
	for _, layer := range layers {
		kind, err := layer.MediaType()
		if err != nil {
			b.t.Fatal(err)
		}
		if base, err = mutate.Append(base, mutate.Addendum{Layer: layer, MediaType: kind}); err != nil {
			b.t.Fatal(err)
		}
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

// sign pushes a JWS signature on an image.
func (b *bed) sign(on image, by *certificate) {
	b.t.Helper()
	b.attach(on, jws.MediaTypeEnvelope, signed(b.t, by, on.DigestStr()))
}

// about returns the subject of an image.
func about(t *testing.T, root trust.Root, on fmt.Stringer) trust.Subject {
	t.Helper()
	ref, err := imageref.Parse(on.String())
	if err != nil {
		t.Fatal(err)
	}
	return root.Subject(ref)
}

// fetch returns the evidence about an image.
func (b *bed) fetch(root trust.Root, on fmt.Stringer, held trust.Evidence) (trust.Evidence, error) {
	b.t.Helper()
	return root.Fetch(b.t.Context(), about(b.t, root, on), held)
}

// rolesAt returns the roles that have signed at a time, joined by commas.
func rolesAt(e trust.Evidence, now time.Time) string {
	if e == nil {
		return "no evidence"
	}
	if end, _ := e.Expiry(); !end.IsZero() && !now.Before(end) {
		return "expired"
	}
	var roles []string
	for _, st := range e.Statements("", "") {
		if st.NotAfter.IsZero() || now.Before(st.NotAfter) {
			roles = append(roles, st.Role)
		}
	}
	return strings.Join(roles, ",")
}

// roles is rolesAt now.
func (b *bed) roles(e trust.Evidence) string { return rolesAt(e, b.now) }

// whys returns what the evidence says of signatures that do not count.
func whys(e trust.Evidence, roles ...string) string {
	var all []string
	for _, r := range e.Rejected(roles, "", "") {
		all = append(all, r.By+" | "+r.Why)
	}
	return strings.Join(all, "\n")
}

// record packs the evidence of an image and reads it back under a root.
func (b *bed) record(from, into *Root, on fmt.Stringer, e trust.Evidence) trust.Evidence {
	b.t.Helper()
	subject := about(b.t, from, on)
	packed, err := from.Pack(map[trust.Subject]trust.Evidence{subject: e})
	if err != nil || packed == nil {
		b.t.Fatalf("got a record of %d bytes and %v", len(packed), err)
	}
	found, err := into.Unpack(subject.InRepository(), packed, nil)
	if err != nil {
		b.t.Fatalf("reading the record: %v", err)
	}
	return found[subject]
}

// listing is a registry of signatures in memory, in an order that the test chooses. Registries list
// in their own.
type listing struct {
	all  []listed
	read int
	mu   sync.Mutex
}

// listed is one entry: an envelope, or the fault of its manifest or blob.
type listed struct {
	registry.Descriptor

	envelope        []byte
	manifest, fails error
}

func (l *listing) add(hex, kind string, envelope []byte) {
	l.all = append(l.all, listed{
		Descriptor: registry.Descriptor{Digest: "sha256:" + hex, ArtifactType: kind}, envelope: envelope,
	})
}

func (l *listing) find(digest string) *listed {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read++
	for i := range l.all {
		if l.all[i].Digest == digest {
			return &l.all[i]
		}
	}
	return nil
}

// Referrers implements registries.
func (l *listing) Referrers(context.Context, string, string, string) ([]registry.Descriptor, error) {
	var all []registry.Descriptor
	for i := range l.all {
		all = append(all, l.all[i].Descriptor)
	}
	return all, nil
}

// Manifest implements registries.
func (l *listing) Manifest(_ context.Context, _, digest string, _ int64) (registry.Manifest, error) {
	one := l.find(digest)
	if one.manifest != nil {
		return registry.Manifest{}, one.manifest
	}
	return registry.Manifest{Digest: digest, Body: fmt.Appendf(nil, `{"artifactType":%q,"layers":[{"mediaType":%q,`+
		`"digest":%q,"size":%d}]}`, artifactType, jws.MediaTypeEnvelope, digest, len(one.envelope))}, nil
}

// Blob implements registries.
func (l *listing) Blob(_ context.Context, _, digest string, _ int64) ([]byte, error) {
	one := l.find(digest)
	return one.envelope, one.fails
}

// Referrers implements registries.
func (d downRegistry) Referrers(context.Context, string, string, string) ([]registry.Descriptor, error) {
	return nil, d.referrers()
}
