package sigstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
)

// attestedBy makes a role one that attestations prove.
func attestedBy(role v1alpha1.SigstoreRole, predicateType string, conditions ...string) v1alpha1.SigstoreRole {
	role.Attestation = &v1alpha1.SigstoreAttestation{PredicateType: predicateType, Conditions: conditions}
	return role
}

// testedBy makes a role one that a load test proves, which must have passed.
func testedBy(role v1alpha1.SigstoreRole) v1alpha1.SigstoreRole {
	return attestedBy(role, loadTest, "predicate.passed == true")
}

// tested returns a role that a load test proves, by a key.
func tested(by signer) v1alpha1.SigstoreRole { return testedBy(keyRole("tested", 1, by.pem)) }

// passed returns the statement of a load test about digests.
func passed(ok bool, predicateType string, digests ...string) []byte {
	var subjects []any
	for _, digest := range digests {
		subjects = append(subjects, map[string]any{
			"name":   "registry.example.com/acme/app",
			"digest": map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")},
		})
	}
	text, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "subject": subjects,
		"predicate": map[string]any{"passed": ok},
	})
	if err != nil {
		panic(err)
	}
	return text
}

// dsse returns the envelope of a statement, as the tag layout has it.
func dsseOf(t testing.TB, by signer, content []byte) []byte {
	t.Helper()
	return fmt.Appendf(nil, `{"payload":%q,"payloadType":%q,"signatures":[{"keyid":"","sig":%q}]}`, b64(content),
		statementType, by.sign(t, pae(content)))
}

// unlike returns the n-th text that differs from a JSON text, and says the same.
func unlike(n int, text []byte) []byte { return append(bytes.Repeat([]byte(" "), n+1), text...) }

func pae(content []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(content), content)
}

func b64(data []byte) string {
	text, _ := json.Marshal(data) //nolint:errchkjson // of bytes
	return strings.Trim(string(text), `"`)
}

// attestationLayer returns a layer of the tag layout.
func attestationLayer(content []byte, predicateType string) mutate.Addendum {
	return mutate.Addendum{
		Layer: static.NewLayer(content, dsseEnvelope), MediaType: dsseEnvelope,
		Annotations: map[string]string{annotationSignature: "", annotationType: predicateType},
	}
}

// attestTag pushes attestations in the tag layout, in place of those before.
func (b *registryBed) attestTag(on image, layers ...mutate.Addendum) {
	b.t.Helper()
	all, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		b.t.Fatal(err)
	}
	tag := on.Context().Tag(strings.Replace(on.DigestStr(), ":", "-", 1) + ".att")
	if err := remote.Write(tag, all, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
}

// attestIn pushes one attestation in a layout.
func (b *registryBed) attestIn(l layout, on image, by signer, predicateType string, content []byte) {
	b.t.Helper()
	if l == layoutTag {
		b.attestTag(on, attestationLayer(dsseOf(b.t, by, content), predicateType))
		return
	}
	b.bundle(on, bundleType, envelope(b.t, by, bundleType, content))
}

// typed is a registry that lists the types of bundles, by their content, as the registries do that
// follow the specification.
type typed struct {
	registries
	first *string // the type that it lists first; nil: any
}

func (r typed) Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor,
	error) {
	all, err := r.registries.Referrers(ctx, repository, digest, artifactType)
	for i := range all {
		m, err := r.Manifest(ctx, repository, all[i].Digest, registry.MaxManifest)
		if err != nil {
			return nil, err
		}
		var manifest struct {
			Layers []struct{ Digest string }
		}
		if err := json.Unmarshal(m.Body, &manifest); err != nil {
			return nil, err
		}
		data, err := r.Blob(ctx, repository, manifest.Layers[0].Digest, 16<<20)
		if err != nil {
			return nil, err
		}
		for _, t := range []string{signPredicate, loadTest, scan} {
			if attests(data, []string{t}) {
				all[i].Annotations = map[string]string{annotationPredicate: t}
			}
		}
	}
	if r.first != nil {
		slices.SortStableFunc(all, func(a, b registry.Descriptor) int {
			return cmp.Compare(strings.Count(*r.first, b.Annotations[annotationPredicate]),
				strings.Count(*r.first, a.Annotations[annotationPredicate]))
		})
	}
	return all, err
}

// withTypes makes the registry of a root list the types of bundles.
func withTypes(root *Root) *Root {
	v := root.Verifier.(*verifier)
	v.registry = typed{registries: v.registry}
	return root
}

// stated makes a signature one over an attestation.
func (s *signed) stated(content []byte) *signed {
	s.b.t.Helper()
	s.layout, s.content, s.message = layoutBundle, content, pae(content)
	signer, err := signature.LoadECDSASigner(s.private, crypto.SHA256)
	if err != nil {
		s.b.t.Fatal(err)
	}
	if s.sig, err = signer.SignMessage(bytes.NewReader(s.message)); err != nil {
		s.b.t.Fatal(err)
	}
	return s
}

// attestation returns an attestation of an identity, or of a key where c is nil, with a log entry.
func (b *identityBed) attestation(on image, ok bool, at time.Duration, c *sigstoreinstance.Certificate) *signed {
	b.t.Helper()
	return b.sign(layoutBundle, on, c).stated(passed(ok, loadTest, on.DigestStr())).loggedAt(b.Time.Add(at))
}

// pushAttestations pushes attestations of any signer in a layout.
func (b *identityBed) pushAttestations(l layout, on image, all ...*signed) {
	b.t.Helper()
	if l == layoutBundle {
		b.pushSigned(on, all...)
		return
	}
	var layers []mutate.Addendum
	for _, s := range all {
		text := fmt.Appendf(nil, `{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}`, b64(s.content),
			statementType, b64(s.sig))
		layer := attestationLayer(text, loadTest)
		for name, value := range s.layer().Annotations {
			if name != annotationSignature {
				layer.Annotations[name] = value
			}
		}
		layers = append(layers, layer)
	}
	b.attestTag(on, layers...)
}

// attestedRoot compiles a TrustRoot with a role that attestations prove, by the identity of the
// tests.
func (b *identityBed) attestedRoot(maxAge time.Duration, clock func() time.Time) *Root {
	b.t.Helper()
	role := testedBy(identityRole("tested", 1, exactly(testIssuer, testSubject)))
	role.Attestation.MaxAge = metav1.Duration{Duration: maxAge}
	root, err := Format{Clock: clock}.Build(b.withTrusted("", role),
		trust.Material{trustedSource: string(b.TrustedRoot())})
	if err != nil {
		b.t.Fatal(err)
	}
	return root.(*Root)
}

// two returns an older and a newer attestation of one identity.
func (b *identityBed) two(on image, older, newer bool) []*signed {
	return []*signed{
		b.attestation(on, older, time.Minute, certificate()), b.attestation(on, newer, 2*time.Minute, certificate()),
	}
}

func sameStatement(a, b trust.Statement) bool {
	return a.Role == b.Role && a.Digest == b.Digest && a.NotAfter.Equal(b.NotAfter) && slices.Equal(a.Keys, b.Keys)
}
