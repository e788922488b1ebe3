package sigstore

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A log entry that is no signature, or would take long to parse, is refused before the parsers of
// the log's own types see it.
func TestThreatHostileLogEntry(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	s := b.sign(layoutBundle, on, certificate())
	good := s.logged().entries[0]
	if _, err := readBody(good); err != nil {
		t.Fatalf("a good entry: got %v", err)
	}
	pem := base64.StdEncoding.EncodeToString([]byte(sigstoreinstance.PEM(s.cert)))
	sig := base64.StdEncoding.EncodeToString(s.sig)
	one := fmt.Sprintf(`{"signature":%q,"verifier":%q}`, sig, pem)
	const hash = `{"algorithm":"sha256","value":"00"}`
	dsse := func(spec string) string { return `{"apiVersion":"0.0.1","kind":"dsse","spec":` + spec + `}` }
	for name, body := range map[string]string{
		"a proposal": dsse(`{"proposedContent":{"envelope":"{}","verifiers":["` + pem + `"]}}`),
		"a proposal beside an entry": dsse(`{"proposedContent":{},"envelopeHash":` + hash + `,"payloadHash":` + hash +
			`,"signatures":[` + one + `]}`),
		"no signature": dsse(`{"envelopeHash":` + hash + `,"payloadHash":` + hash + `,"signatures":[]}`),
		"a null":       dsse(`{"envelopeHash":` + hash + `,"payloadHash":` + hash + `,"signatures":[null]}`),
		"two signatures": dsse(`{"envelopeHash":` + hash + `,"payloadHash":` + hash + `,"signatures":[` + one + `,` + one +
			`]}`),
		"a name twice":     strings.Replace(string(good.GetCanonicalizedBody()), `"kind"`, `"kind":"dsse","kind"`, 1),
		"another spelling": `{"apiVersion":"0.0.1","kind":"dsse","KIND":"intoto","spec":{}}`,
		"another kind":     `{"apiVersion":"0.0.1","kind":"rekord","spec":{}}`,
		"a payload": `{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payload":"eA==","payloadType":` +
			`"x","signatures":[{"sig":"ZUE9PQ==","publicKey":"` + pem + `"}]},"hash":` + hash + `,"payloadHash":` + hash + `}}}`,
		"no verifier": `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":` + hash +
			`},"signature":{"content":"eA=="}}}`,
		"two verifiers": `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":` +
			`"SHA2_256","digest":""},"signature":{"content":"eA==","verifier":{"publicKey":{"rawBytes":"eA=="},` +
			`"x509Certificate":{"rawBytes":"eA=="}}}}}}`,
		"a list":    `[]`,
		"nothing":   ``,
		"too large": dsse(`{"envelopeHash":"` + strings.Repeat("a", maxEntry) + `"}`),
		"nested":    dsse(strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000)),
	} {
		e := b.LogV1("dsse", "0.0.1", []byte(body), b.Time)
		if _, err := readBody(e); err == nil {
			t.Errorf("%s: got no error, want it refused", name)
		}
		s.entries = []*protorekor.TransparencyLogEntry{e}
		p := proveBundle(t, b, s.bundle(bundleType))
		if p == nil || !strings.Contains(p.whyIdentity, "its log entry is not valid") {
			t.Errorf("%s: got %+v, want the entry to spoil the signature", name, p)
		}
	}
}

// A log entry with more than an entry has is not read, whichever part is large.
func TestThreatLargeLogEntry(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	for name, enlarge := range map[string]func(*protorekor.TransparencyLogEntry){
		"body": func(e *protorekor.TransparencyLogEntry) {
			e.CanonicalizedBody = append(e.CanonicalizedBody, bytes.Repeat([]byte(" "), maxEntry)...)
		},
		"proof": func(e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Hashes = make([][]byte, maxProof+1)
		},
		"checkpoint": func(e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Checkpoint.Envelope += strings.Repeat("x", maxCheckpoint)
		},
	} {
		e := b.sign(layoutBundle, on, certificate()).logged().entries[0]
		enlarge(e)
		if _, err := readBody(e); err == nil || err.Error() != "it is too large" {
			t.Errorf("%s: got %v, want it to be too large", name, err)
		}
	}
}

// A timestamp of more bytes than any has is not read, in either layout.
func TestThreatLargeTimestamp(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]int{maxTimestamp: 1, maxTimestamp + 1: 0} {
		stamp := make([]byte, size)
		m := bundleMaterial(&protobundle.VerificationMaterial{
			TimestampVerificationData: &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
			},
		}, nil, false)
		if len(m.timestamps) != want {
			t.Errorf("a bundle, %d bytes: got %d timestamps, want %d", size, len(m.timestamps), want)
		}
		text, err := json.Marshal(map[string]any{"SignedRFC3161Timestamp": stamp})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readTimestampAnnotation(text); (err == nil) != (want == 1) {
			t.Errorf("an annotation, %d bytes: got %v, want it read: %t", size, err, want == 1)
		}
	}
}

// proveBundle returns what a bundle of an image proves, nil where it is none.
func proveBundle(t *testing.T, b *identityBed, data []byte) *proof {
	t.Helper()
	c := claimOf(t, data)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
	p, err := root.Verifier.(*verifier).prove(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A timestamp that would take long to parse or to verify is none.
func TestThreatHostileTimestamp(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	sig := []byte("signature")
	good := b.Timestamp(sig, b.Time)
	if !usable(good, sig, nil) {
		t.Fatal("a good timestamp: got it refused")
	}
	deep := []byte{5, 0}
	for range 2000 {
		var err error
		if deep, err = asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: deep}); err != nil {
			t.Fatal(err)
		}
	}
	status, err := asn1.Marshal([]int{0})
	if err != nil {
		t.Fatal(err)
	}
	nested, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(status, deep...)})
	if err != nil {
		t.Fatal(err)
	}
	indefinite := []byte{0x30, 0x80, 0x30, 0x03, 0x02, 0x01, 0x00, 0x30, 0x80, 0, 0, 0, 0}
	for name, c := range map[string]struct {
		data []byte
		der  bool
	}{"good": {good, true}, "nested": {nested, false}, "indefinite length": {indefinite, false}} {
		if got := isDER(c.data, maxDepth); got != c.der {
			t.Errorf("%s: got isDER %t, want %t", name, got, c.der)
		}
	}
	for name, stamp := range map[string][]byte{
		"nested": nested, "empty": nil, "text": []byte("text"),
		"with more after it": append(good[:len(good):len(good)], 5, 0),
		"indefinite length":  indefinite,
	} {
		if usable(stamp, sig, nil) {
			t.Errorf("%s: got it used, want it refused", name)
		}
	}
	if usable(good, []byte("another signature"), nil) {
		t.Error("of another signature: got it used, want it refused")
	}
}

// More than a few entries or timestamps are more than a client writes: they are not verified.
func TestThreatManyEntriesAndTimestamps(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
	for name, c := range map[string]struct {
		make    func(*signed)
		because string
	}{
		"entries": {func(s *signed) {
			for range maxEntries + 1 {
				s.logged()
			}
		}, "its log entry is not valid: there are more than 4 entries"},
		"timestamps": {func(s *signed) {
			for range maxTimestamps + 1 {
				s.stamped()
			}
		}, "its signed timestamp is one of more than 4"},
		"as many as are read": {func(s *signed) {
			for range maxTimestamps {
				s.logged().stamped()
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			on := b.push()
			s := b.sign(layoutBundle, on, certificate())
			c.make(s)
			b.pushSigned(on, s)
			checkCase(t, root, on, c.because)
		})
	}
}

// Annotations of more than a signature has are not read.
func TestThreatLargeAnnotations(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
	on := b.push()
	large := b.sign(layoutTag, on, certificate()).logged()
	padded := large.layer()
	padded.Annotations[annotationChain] = strings.Repeat("a", maxSignature)
	b.tagged(on, padded)
	checkCase(t, root, on, "has a set of annotations of more than 64 KiB")
	b.tagged(on, padded, b.sign(layoutTag, on, certificate()).logged().layer())
	if e, err := fetch(t, root, on.Name(), nil); err != nil || rolesOf(e) != "ci" {
		t.Errorf("beside a good one: got %q and %v, want the role", rolesOf(e), err)
	}
}

// A bundle is no signature of the tag layout, nor a payload a bundle, whatever their media types
// say.
func TestThreatSwappedMediaTypes(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
	on := b.push()
	bundled, tagged := b.sign(layoutBundle, on, certificate()).logged(), b.sign(layoutTag, on, certificate()).logged()
	layer := tagged.layer()
	for name, c := range map[string]struct {
		push    func(on image)
		because string
	}{
		"a bundle as a layer": {func(on image) {
			swapped := layerOf(bundled.bundle(bundleType), "eA==", bundleType)
			swapped.Annotations = layer.Annotations
			b.tagged(on, swapped)
		}, "has the media type " + bundleType},
		"a bundle as a payload": {func(on image) {
			swapped := layerOf(bundled.bundle(bundleType), "eA==", simpleSigning)
			swapped.Annotations = layer.Annotations
			b.tagged(on, swapped)
		}, "has a payload of the type"},
		"a payload as a bundle": {func(on image) { b.bundleOf(on, bundleType, tagged.content, layer.Annotations) },
			"is no Sigstore bundle"},
		"a bundle of another type": {func(on image) {
			b.bundle(on, bundleType, bundled.bundle("text/plain"))
		}, "is no Sigstore bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			image := on
			if name != "a bundle as a layer" { // each needs an image without the others
				image = b.push()
			}
			c.push(image)
			checkCase(t, root, image, c.because)
		})
	}
}

// FuzzBundle: whatever a registry serves as a bundle, nothing panics, and nothing counts that is
// not signed by the identity.
func FuzzBundle(f *testing.F) {
	b, v, about := fuzzBed(f)
	on := fuzzImage(f)
	s := b.sign(layoutBundle, on, certificate()).logged().stamped()
	good := s.bundle(bundleType)
	f.Add(good)
	f.Add(b.sign(layoutBundle, on, certificate()).loggedV2().stamped().bundle(bundleType))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := v.judge(t.Context(), about, &kept{Layout: layoutBundle, Bundle: data}, nil)
		if err != nil || j.proof == nil || !v.roles.counts(j.proof) {
			return
		}
		c, err := readBundle(data, about.Digest, nil)
		if err != nil || c.material.leaf == nil {
			t.Fatalf("counts, and has no certificate: %v", err)
		}
	})
}

// FuzzAnnotations is FuzzBundle for the tag layout.
func FuzzAnnotations(f *testing.F) {
	b, v, about := fuzzBed(f)
	on := fuzzImage(f)
	s := b.sign(layoutTag, on, certificate()).logged().stamped()
	a := s.layer().Annotations
	f.Add([]byte(a[annotationCertificate]), []byte(a[annotationChain]), []byte(a[annotationLog]),
		[]byte(a[annotationTimestamp]))
	f.Fuzz(func(t *testing.T, certificate, chain, log, timestamp []byte) {
		k := &kept{
			Layout: layoutTag, Payload: s.content, Signature: base64.StdEncoding.EncodeToString(s.sig),
			extras: extras{Certificate: certificate, Chain: chain, Log: log, Timestamp: timestamp},
		}
		if _, err := v.judge(t.Context(), about, k, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzTimestamp: nothing panics, and what counts has the time that it was made with.
func FuzzTimestamp(f *testing.F) {
	b, v, _ := fuzzBed(f)
	sig := []byte("signature")
	at := b.Time.Add(time.Minute)
	f.Add(b.Timestamp(sig, at))
	trusted, err := v.trusted()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &claim{signature: sig, material: &material{timestamps: [][]byte{data}}}
		for _, got := range verifyTimestamps(c, nil, trusted) {
			if !got.Equal(at) {
				t.Fatalf("got the time %s, want %s", got, at)
			}
		}
	})
}

// fuzzBed returns an instance of Sigstore without a registry, and a verifier that trusts it.
func fuzzBed(f *testing.F) (*identityBed, *verifier, trust.Subject) {
	f.Helper()
	b := &identityBed{registryBed: &registryBed{t: f}, Instance: sigstoreinstance.New(f)}
	tr := trustRoot(nil, identityRole("ci", 1, exactly(testIssuer, testSubject)))
	tr.Spec.Sigstore.TrustedRoot = &v1alpha1.SigstoreTrustedRoot{From: &trustedSource}
	root := buildWith(f, tr, b.TrustedRoot())
	return b, root.Verifier.(*verifier), trust.Subject{
		Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app", Digest: fuzzDigest,
	}
}

// fuzzDigest is the digest of the image of the fuzz tests.
const fuzzDigest = "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// fuzzImage returns the image of the fuzz tests.
func fuzzImage(f *testing.F) image {
	f.Helper()
	digest, err := name.NewDigest("registry.example.com/acme/app@" + fuzzDigest)
	if err != nil {
		f.Fatal(err)
	}
	return image{Digest: digest}
}

// Judging a signature allocates no more than it reserves in the budget, whatever it comes with.
func TestThreatJudgingCostsNoMoreThanIsCharged(t *testing.T) {
	b := newIdentityBed(t)
	on := b.push()
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
	v, about := root.Verifier.(*verifier), root.Subject(parse(t, on.Name()))
	whole := b.sign(layoutBundle, on, certificate())
	for range maxTimestamps {
		whole.logged().stamped()
	}
	long := b.sign(layoutBundle, on, certificate()).logged()
	for range 9 {
		long.chain = append(long.chain, b.Fulcio.Intermediate)
	}
	many := []byte(`{"mediaType":"` + bundleType + `","verificationMaterial":{"tlogEntries":[` +
		strings.Repeat(`{},`, 15000) + `{}]}}`)
	for name, data := range map[string][]byte{
		"a signature with all that is read": whole.bundle(bundleType),
		"a long chain":                      long.bundle(bundlePrefix + "+json;version=0.2"),
		"empty entries":                     many,
	} {
		k := &kept{Layout: layoutBundle, Bundle: data}
		charged := decodeFrame + decodeCost*k.size()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := v.judge(t.Context(), about, k, nil)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		used := int64(after.TotalAlloc - before.TotalAlloc)
		t.Logf("%s: %d bytes, charged %d", name, used, charged)
		if used > charged {
			t.Errorf("%s: got %d bytes allocated, want at most the %d that are charged", name, used, charged)
		}
	}
}
