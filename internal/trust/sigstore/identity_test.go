package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	testIssuer  = "https://token.example.com"
	testSubject = "https://github.com/acme/app/.github/workflows/release.yaml@refs/heads/main"
)

// identityRole returns a role with these identities.
func identityRole(name string, threshold int, identities ...v1alpha1.SigstoreIdentity) v1alpha1.SigstoreRole {
	return v1alpha1.SigstoreRole{
		Name: v1alpha1.RoleName(name), Threshold: int32(threshold), Identities: identities,
	}
}

func exactly(issuer, subject string) v1alpha1.SigstoreIdentity {
	return v1alpha1.SigstoreIdentity{Issuer: issuer, Subject: subject}
}

// identityBed is a registry, and an instance of Sigstore.
type identityBed struct {
	*registryBed
	*sigstoreinstance.Instance
}

func newIdentityBed(t testing.TB) *identityBed {
	t.Helper()
	return &identityBed{registryBed: newRegistryBed(t), Instance: sigstoreinstance.New(t)}
}

// withTrusted returns a TrustRoot with the trusted root of the instance.
func (b *identityBed) withTrusted(log v1alpha1.TransparencyLog, roles ...v1alpha1.SigstoreRole) *v1alpha1.TrustRoot {
	tr := trustRoot(b.settings(), roles...)
	tr.Spec.Sigstore.TransparencyLog = log
	tr.Spec.Sigstore.TrustedRoot = &v1alpha1.SigstoreTrustedRoot{From: &trustedSource}
	return tr
}

var trustedSource = v1alpha1.KeySource{Kind: "ConfigMap", Name: "trusted-root", Key: "trusted_root.json"}

// buildWith compiles a TrustRoot with a trusted root.
func buildWith(t testing.TB, tr *v1alpha1.TrustRoot, trusted []byte) *Root {
	t.Helper()
	root, err := Format{}.Build(tr, trust.Material{trustedSource: string(trusted)})
	if err != nil {
		t.Fatal(err)
	}
	return root.(*Root)
}

// signed is one signature on an image and what it comes with.
type signed struct {
	b       *identityBed
	layout  layout
	private *ecdsa.PrivateKey
	content []byte // payload or statement
	message []byte // what the key signs
	sig     []byte
	cert    *x509.Certificate // nil: by the bare key
	chain   []*x509.Certificate
	entries []*protorekor.TransparencyLogEntry
	stamps  [][]byte
}

// sign makes a signature in a layout, with a certificate of the instance unless c is nil.
func (b *identityBed) sign(l layout, on image, c *sigstoreinstance.Certificate) *signed {
	b.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.signWith(l, on, c, private)
}

func (b *identityBed) signWith(l layout, on image, c *sigstoreinstance.Certificate, private *ecdsa.PrivateKey) *signed {
	b.t.Helper()
	s := &signed{b: b, layout: l, private: private}
	if s.content = payload(cosignType, "", on.DigestStr()); l == layoutBundle {
		s.content = statementOf(signPredicate, on.DigestStr())
	}
	if s.message = s.content; l == layoutBundle {
		s.message = fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(s.content), s.content)
	}
	signer, err := signature.LoadECDSASigner(private, crypto.SHA256)
	if err != nil {
		b.t.Fatal(err)
	}
	if s.sig, err = signer.SignMessage(bytes.NewReader(s.message)); err != nil {
		b.t.Fatal(err)
	}
	if c != nil {
		s.cert = b.Certify(private.Public(), *c)
	}
	return s
}

// certificate returns a certificate of the identity of the tests, after edits.
func certificate(edits ...func(*sigstoreinstance.Certificate)) *sigstoreinstance.Certificate {
	c := &sigstoreinstance.Certificate{Issuer: testIssuer, Subject: testSubject}
	for _, edit := range edits {
		edit(c)
	}
	return c
}

// listed returns the signature as a log lists it.
func (s *signed) listed() *sigstoreinstance.Signed {
	l := &sigstoreinstance.Signed{Signature: s.sig, Certificate: s.cert, Key: s.private.Public(), Message: s.message}
	if s.layout == layoutBundle {
		l.Payload = s.content
	}
	return l
}

// logged adds an entry of Rekor v1, a minute after the time of the instance.
func (s *signed) logged() *signed { return s.loggedAt(s.b.Time.Add(time.Minute)) }

func (s *signed) loggedAt(at time.Time) *signed {
	s.entries = append(s.entries, s.b.EntryV1(s.listed(), at))
	return s
}

// loggedV2 adds an entry of Rekor v2.
func (s *signed) loggedV2() *signed {
	s.entries = append(s.entries, s.b.EntryV2(s.listed()))
	return s
}

// stamped adds a timestamp, a minute after the time of the instance.
func (s *signed) stamped() *signed { return s.stampedAt(s.b.Time.Add(time.Minute)) }

func (s *signed) stampedAt(at time.Time) *signed {
	s.stamps = append(s.stamps, s.b.Timestamp(s.sig, at))
	return s
}

// layer returns the signature as a layer of the tag layout.
func (s *signed) layer() mutate.Addendum {
	s.b.t.Helper()
	annotations := map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(s.sig)}
	if s.cert != nil {
		annotations[annotationCertificate] = sigstoreinstance.PEM(s.cert)
		annotations[annotationChain] = sigstoreinstance.PEM(s.chain...)
	}
	add := func(name string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			s.b.t.Fatal(err)
		}
		annotations[name] = string(text)
	}
	for _, e := range s.entries {
		add(annotationLog, map[string]any{
			"SignedEntryTimestamp": e.GetInclusionPromise().GetSignedEntryTimestamp(),
			"Payload": map[string]any{
				"body": e.GetCanonicalizedBody(), "integratedTime": e.GetIntegratedTime(), "logIndex": e.GetLogIndex(),
				"logID": hex.EncodeToString(e.GetLogId().GetKeyId()),
			},
		})
	}
	for _, stamp := range s.stamps {
		add(annotationTimestamp, map[string]any{"SignedRFC3161Timestamp": stamp})
	}
	return mutate.Addendum{
		Layer: static.NewLayer(s.content, simpleSigning), MediaType: simpleSigning, Annotations: annotations,
	}
}

// bundle returns the signature as a bundle of a version.
func (s *signed) bundle(mediaType string) []byte {
	s.b.t.Helper()
	material := map[string]any{"publicKey": map[string]any{"hint": "x"}}
	raw := func(cert *x509.Certificate) map[string]any { return map[string]any{"rawBytes": cert.Raw} }
	if s.cert != nil {
		material = map[string]any{"certificate": raw(s.cert)}
	}
	if s.chain != nil {
		chain := []any{raw(s.cert)}
		for _, cert := range s.chain {
			chain = append(chain, raw(cert))
		}
		material = map[string]any{"x509CertificateChain": map[string]any{"certificates": chain}}
	}
	var entries []json.RawMessage
	for _, e := range s.entries {
		text, err := protojson.Marshal(e)
		if err != nil {
			s.b.t.Fatal(err)
		}
		entries = append(entries, text)
	}
	var stamps []any
	for _, stamp := range s.stamps {
		stamps = append(stamps, map[string]any{"signedTimestamp": stamp})
	}
	material["tlogEntries"] = entries
	material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": stamps}
	text, err := json.Marshal(map[string]any{
		"mediaType": mediaType, "verificationMaterial": material,
		"dsseEnvelope": map[string]any{
			"payload": s.content, "payloadType": statementType, "signatures": []any{map[string]any{"sig": s.sig}},
		},
	})
	if err != nil {
		s.b.t.Fatal(err)
	}
	return text
}

// push pushes the signatures on an image, all of one layout.
func (b *identityBed) pushSigned(on image, all ...*signed) {
	b.t.Helper()
	if all[0].layout == layoutTag {
		var layers []mutate.Addendum
		for _, s := range all {
			layers = append(layers, s.layer())
		}
		b.tagged(on, layers...)
		return
	}
	for _, s := range all {
		mediaType := bundleType
		if s.chain != nil {
			mediaType = bundlePrefix + "+json;version=0.2" // version 0.3 has no chain
		}
		b.bundle(on, mediaType, s.bundle(mediaType))
	}
}

// both are the two layouts.
func both() []layout { return []layout{layoutTag, layoutBundle} }

// identityCase is a signature by an identity, and what it proves.
type identityCase struct {
	// cert edits the certificate, and make what it comes with.
	cert func(*sigstoreinstance.Certificate)
	make func(*signed)
	// only is the layout that can have it; empty: both can.
	only layout
	// because is the text of the rejection; empty: the role is proven.
	because string
}

// A signature by an identity counts only with a certificate of the authority, of a listed identity,
// that was valid at a time which a log or a timestamp authority has signed.
func TestThreatSigstoreIdentity(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	other := sigstoreinstance.New(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)),
		identityRole("qa", 1, exactly(testIssuer, "qa@example.com"))), b.TrustedRoot())
	cases := identityCases(b, other)
	for name, c := range cases {
		for _, l := range both() {
			if c.only != "" && c.only != l {
				continue
			}
			t.Run(name+", "+string(l), func(t *testing.T) {
				b.t = t
				on := b.push()
				cert := certificate()
				if c.cert != nil {
					c.cert(cert)
				}
				s := b.sign(l, on, cert)
				c.make(s)
				b.pushSigned(on, s)
				checkCase(t, root, on, c.because)
			})
		}
	}
}

// checkCase checks that ci has signed, or that the denial says why not, now and after a restart.
func checkCase(t *testing.T, root *Root, on image, because string) {
	t.Helper()
	want := because == ""
	ci := func(e trust.Evidence) bool { return slices.Contains(strings.Split(rolesOf(e), ","), "ci") }
	about := root.Subject(parse(t, on.Name()))
	e, err := root.Fetch(t.Context(), about, nil)
	if err != nil {
		t.Fatalf("got %v, want a verdict", err)
	}
	if ci(e) != want || len(e.Faults()) > 0 {
		t.Errorf("got roles %q and faults %v, want ci: %t, and none", rolesOf(e), e.Faults(), want)
	}
	if got := whys(e, "ci"); !strings.Contains(got, because) || (got == "") != (because == "") {
		t.Errorf("got rejections %q, want them to say %q", got, because)
	}
	packed, err := root.Verifier.Pack(e)
	if err != nil {
		t.Fatal(err)
	}
	if packed == nil {
		if want {
			t.Error("got no record, want one of a verified signature")
		}
		return
	}
	if again, err := root.Verifier.Unpack(about, packed, nil); err != nil || ci(again) != want {
		t.Errorf("from its record: got %q and %v, want ci: %t", rolesOf(again), err, want)
	}
	if again, err := root.Recheck(about, e); err != nil || ci(again) != want {
		t.Errorf("checked again: got %q and %v, want ci: %t", rolesOf(again), err, want)
	}
}

func identityCases(b *identityBed, other *sigstoreinstance.Instance) map[string]identityCase {
	flip := func(data []byte) { data[len(data)/2] ^= 1 }
	cases := map[string]identityCase{
		"in the log":              {make: func(s *signed) { s.logged() }},
		"with a timestamp":        {make: func(s *signed) { s.stamped() }},
		"with both":               {make: func(s *signed) { s.logged().stamped() }},
		"in the log of version 2": {make: func(s *signed) { s.loggedV2().stamped() }, only: layoutBundle},
		"neither": {
			make: func(*signed) {}, because: "but it is not in a transparency log, and it has no signed timestamp",
		},
		"in the log of version 2, without a timestamp": {
			make: func(s *signed) { s.loggedV2() }, only: layoutBundle,
			because: "but its log entry has no time that the log has signed",
		},
		"subject off by one letter": {
			cert: func(c *sigstoreinstance.Certificate) { c.Subject = strings.Replace(testSubject, "acme", "acne", 1) },
			make: func(s *signed) { s.logged() }, because: `and subject "https://github.com/acne/app/`,
		},
		"issuer of another instance": {
			cert: func(c *sigstoreinstance.Certificate) { c.Issuer = "https://token.example.org" },
			make: func(s *signed) { s.logged() }, because: `its certificate is of issuer "https://token.example.org"`,
		},
		"of another role": {
			cert: func(c *sigstoreinstance.Certificate) { c.Subject = "qa@example.com" },
			make: func(s *signed) { s.logged() }, because: `and is an identity of "qa" alone`,
		},
		"two subjects": {
			cert: func(c *sigstoreinstance.Certificate) {
				c.Edit = func(cert *x509.Certificate) {
					cert.URIs = append(cert.URIs, &url.URL{Scheme: "https", Host: "example.com"})
				}
			},
			make: func(s *signed) { s.logged() }, because: "has a certificate that has 2 subject alternative names",
		},
		"expired at the time of the log": {
			make:    func(s *signed) { s.loggedAt(b.Time.Add(11 * time.Minute)) },
			because: "but its certificate is valid from",
		},
		"expired at the time of the timestamp": {
			make:    func(s *signed) { s.stampedAt(b.Time.Add(11 * time.Minute)) },
			because: "but its certificate is valid from",
		},
		"expired at one of two times": {
			make:    func(s *signed) { s.logged().stampedAt(b.Time.Add(11 * time.Minute)) },
			because: "but its certificate is valid from",
		},
		"not yet valid": {
			make:    func(s *signed) { s.loggedAt(b.Time.Add(-time.Minute)) },
			because: "but its certificate is valid from",
		},
		"of another certificate authority": {
			make: func(s *signed) {
				s.cert = other.Certify(s.private.Public(), *certificate())
				s.logged()
			},
			because: "has a certificate of no authority of the trusted root",
		},
		"of a certificate of another key": {
			make: func(s *signed) {
				s.cert = b.sign(s.layout, b.push(), certificate()).cert
				s.logged()
			},
			because: "a key that no role of this trust root lists",
		},
		"of a certificate for servers": {
			cert: func(c *sigstoreinstance.Certificate) {
				c.Edit = func(cert *x509.Certificate) {
					cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				}
			},
			make: func(s *signed) { s.logged() }, because: "has a certificate of no authority of the trusted root",
		},
		"without SCT": {
			cert: func(c *sigstoreinstance.Certificate) { c.NoSCT = true },
			make: func(s *signed) { s.logged() }, because: "but no certificate transparency log of the trusted root",
		},
		"SCT of another log": {
			cert: func(c *sigstoreinstance.Certificate) { c.CT = other.CT },
			make: func(s *signed) { s.logged() }, because: "but no certificate transparency log of the trusted root",
		},
		"SCT broken": {
			cert: func(c *sigstoreinstance.Certificate) { c.BadSCT = true },
			make: func(s *signed) { s.logged() }, because: "but no certificate transparency log of the trusted root",
		},
		"timestamp of another authority": {
			make:    func(s *signed) { s.stamps = [][]byte{other.Timestamp(s.sig, b.Time.Add(time.Minute))} },
			because: "and it has no signed timestamp of an authority of the trusted root",
		},
		"timestamp of another signature": {
			make:    func(s *signed) { s.stamps = [][]byte{b.Timestamp([]byte("other"), b.Time.Add(time.Minute))} },
			because: "and it has no signed timestamp of an authority of the trusted root",
		},
		"timestamp broken": {
			make:    func(s *signed) { flip(s.stamped().stamps[0]) },
			because: "and it has no signed timestamp of an authority of the trusted root",
		},
		"log of another instance": {
			make: func(s *signed) {
				s.entries = append(s.entries, other.EntryV1(s.listed(), b.Time.Add(time.Minute)))
			},
			because: "but its log entry is of no log of the trusted root",
		},
		"chain too long": {
			make: func(s *signed) {
				s.logged()
				for range 10 {
					s.chain = append(s.chain, b.Fulcio.Intermediate)
				}
			},
			because: "has a chain of more than 10 certificates",
		},
		"chain of ten": {
			make: func(s *signed) {
				s.logged()
				for range 9 {
					s.chain = append(s.chain, b.Fulcio.Intermediate)
				}
			},
		},
	}
	addLogCases(cases, b, other)
	return cases
}

// addLogCases adds entries of a log of the trusted root that are not valid. Each spoils its
// signature, whatever else it has.
func addLogCases(cases map[string]identityCase, b *identityBed, other *sigstoreinstance.Instance) {
	flip := func(data []byte) { data[len(data)/2] ^= 1 }
	invalid := func(only layout, because string,
		edit func(s *signed, e *protorekor.TransparencyLogEntry)) identityCase {
		return identityCase{only: only, because: because, make: func(s *signed) { edit(s, s.logged().entries[0]) }}
	}
	of := map[string]identityCase{
		"entry of another artifact": {
			make: func(s *signed) {
				s.entries = b.sign(s.layout, b.push(), certificate()).logged().entries
			},
			because: "but its log entry is not valid: it is about another signature",
		},
		"entry of another certificate": {
			make: func(s *signed) {
				l := s.listed()
				l.Certificate = b.Certify(s.private.Public(), *certificate())
				s.entries = append(s.entries, b.EntryV1(l, b.Time.Add(time.Minute)))
			},
			because: "it is about the signature of another key or certificate",
		},
		"entry of another payload": {
			make: func(s *signed) {
				l := s.listed()
				l.Message, l.Payload = []byte("{}"), []byte("{}")
				if s.layout == layoutTag {
					l.Payload = nil
				}
				s.entries = append(s.entries, b.EntryV1(l, b.Time.Add(time.Minute)))
			},
			because: "but its log entry is not valid",
		},
		"promise broken": invalid("", "but its log entry is not valid: the promise of inclusion",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { flip(e.InclusionPromise.SignedEntryTimestamp) }),
		"promise of another log": invalid("", "but its log entry is not valid: the promise of inclusion",
			func(s *signed, e *protorekor.TransparencyLogEntry) {
				e.InclusionPromise = other.EntryV1(s.listed(), b.Time.Add(time.Minute)).InclusionPromise
			}),
		"time changed": invalid("", "but its log entry is not valid: the promise of inclusion",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { e.IntegratedTime++ }),
		"proof broken": invalid(layoutBundle, "but its log entry is not valid",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { flip(e.InclusionProof.Hashes[0]) }),
		"proof missing": invalid(layoutBundle, "but its log entry is not valid: the proof of inclusion is missing",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { e.InclusionProof = nil }),
		"checkpoint missing": invalid(layoutBundle, "but its log entry is not valid: the checkpoint is missing",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { e.InclusionProof.Checkpoint = nil }),
		"checkpoint empty": invalid(layoutBundle, "but its log entry is not valid: the checkpoint is missing",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { e.InclusionProof.Checkpoint.Envelope = "" }),
		"checkpoint of another log": invalid(layoutBundle, "but its log entry is not valid",
			func(s *signed, e *protorekor.TransparencyLogEntry) {
				elsewhere := other.EntryV1(s.listed(), b.Time.Add(time.Minute))
				e.InclusionProof.Checkpoint = elsewhere.InclusionProof.Checkpoint
			}),
		"checkpoint of the other kind of log": invalid(layoutBundle, "its checkpoint is of another kind of log",
			func(s *signed, e *protorekor.TransparencyLogEntry) {
				e.InclusionProof.Checkpoint = b.EntryV2(s.listed()).InclusionProof.Checkpoint
			}),
		"body broken": invalid("", "but its log entry is not valid",
			func(_ *signed, e *protorekor.TransparencyLogEntry) { e.CanonicalizedBody[0] = '[' }),
		"a good entry beside a broken one": {
			only: layoutBundle, because: "but its log entry is not valid",
			make: func(s *signed) { flip(s.logged().logged().entries[1].InclusionPromise.SignedEntryTimestamp) },
		},
		"version 2, of another artifact": {
			only: layoutBundle, because: "it is about another signature",
			make: func(s *signed) {
				s.entries = b.sign(s.layout, b.push(), certificate()).loggedV2().entries
				s.stamped()
			},
		},
		"version 2, checkpoint of another log": {
			only: layoutBundle, because: "but its log entry is not valid",
			make: func(s *signed) {
				s.loggedV2().stamped().entries[0].InclusionProof = other.EntryV2(s.listed()).InclusionProof
			},
		},
		"version 2, proof of another entry": {
			only: layoutBundle, because: "but its log entry is not valid",
			make: func(s *signed) {
				elsewhere := b.sign(s.layout, b.push(), certificate()).loggedV2().entries[0]
				s.loggedV2().stamped().entries[0].InclusionProof = elsewhere.InclusionProof
			},
		},
	}
	for name, c := range of {
		cases["log: "+name] = c
		with := c
		with.make = func(s *signed) {
			c.make(s)
			if len(s.stamps) == 0 {
				s.stamped()
			}
		}
		cases["log: "+name+", beside a good timestamp"] = with
	}
}

// What a signature needs, by the value of transparencyLog.
func TestThreatTransparencyLog(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	byKey := signerOf(t, s)
	has := map[string]func(*signed){
		"nothing":              func(*signed) {},
		"timestamp":            func(s *signed) { s.stamped() },
		"log":                  func(s *signed) { s.logged() },
		"log v2":               func(s *signed) { s.loggedV2() },
		"log v2 and timestamp": func(s *signed) { s.loggedV2().stamped() },
	}
	for _, log := range []v1alpha1.TransparencyLog{"", "Require", "Ignore"} {
		root := buildWith(t, b.withTrusted(log, keyRole("key", 1, byKey.pem),
			identityRole("identity", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
		counts := map[string]map[string]bool{
			"": {
				"key nothing": true, "key timestamp": true, "key log": true, "key log v2": true,
				"key log v2 and timestamp": true, "identity timestamp": true, "identity log": true,
				"identity log v2 and timestamp": true,
			},
			"Require": {
				"key log": true, "key log v2": true, "key log v2 and timestamp": true,
				"identity log": true, "identity log v2 and timestamp": true,
			},
			"Ignore": {
				"key nothing": true, "key timestamp": true, "key log": true, "key log v2": true,
				"key log v2 and timestamp": true, "identity timestamp": true, "identity log v2 and timestamp": true,
			},
		}[string(log)]
		for _, by := range []string{"key", "identity"} {
			for _, l := range both() {
				for name, add := range has {
					if l == layoutTag && strings.Contains(name, "v2") {
						continue
					}
					on := b.push()
					s := b.sign(l, on, certificate())
					if by == "key" {
						s = b.signWith(l, on, nil, private)
					}
					add(s)
					b.pushSigned(on, s)
					at := fmt.Sprintf("transparencyLog %q, %s, %s, %s", log, by, l, name)
					e, err := fetch(t, root, on.Name(), nil)
					if err != nil || (rolesOf(e) == by) != counts[by+" "+name] {
						t.Errorf("%s: got %q and %v, want it to count: %t", at, rolesOf(e), err, counts[by+" "+name])
						continue
					}
					if got := whys(e, by); !counts[by+" "+name] && !strings.Contains(got, "but ") {
						t.Errorf("%s: got rejections %q, want the reason", at, got)
					}
				}
			}
		}
	}
}

// An expression matches only the whole issuer and subject.
func TestThreatUnanchoredIdentity(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	signed := map[layout]image{}
	for _, l := range both() {
		signed[l] = b.push()
		b.pushSigned(signed[l], b.sign(l, signed[l], certificate()).logged())
	}
	for expression, counts := range map[string]bool{
		`https://github\.com/acme/.+`: true, `https://github\.com/acme/app`: false, `github\.com/.+`: false,
		`x|https://github\.com/acme/app`: false, `https://github\.com/acme/.+|x`: true,
		`^https://github\.com/acme/app|release\.yaml@refs/heads/main$`: false,
	} {
		root := buildWith(t, b.withTrusted("", identityRole("ci", 1, v1alpha1.SigstoreIdentity{
			IssuerRegExp: `https://token\.example\.(com|org)`, SubjectRegExp: expression,
		})), b.TrustedRoot())
		for l, on := range signed {
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil || (rolesOf(e) == "ci") != counts {
				t.Errorf("%s, %s: got %q and %v, want it to match: %t", l, expression, rolesOf(e), err, counts)
			}
		}
	}
}
