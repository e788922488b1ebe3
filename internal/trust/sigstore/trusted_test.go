package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

// newPrivate returns a private key on P-256, and its pair.
func newPrivate(t *testing.T) (*ecdsa.PrivateKey, signer) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return private, signerOf(t, s)
}

// A threshold counts keys and listed identities, each once, and one public key once.
func TestThreatIdentitiesCountOnce(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	listed, byKey := newPrivate(t)
	shared, _ := newPrivate(t)
	role := identityRole("ci", 2, exactly(testIssuer, testSubject),
		v1alpha1.SigstoreIdentity{Issuer: testIssuer, SubjectRegExp: `.+@example\.com`})
	role.Keys = []v1alpha1.PEM{v1alpha1.PEM(byKey.pem)}
	root := buildWith(t, b.withTrusted("", role), b.TrustedRoot())
	by := func(subject string) *sigstoreinstance.Certificate {
		return certificate(func(c *sigstoreinstance.Certificate) { c.Subject = subject })
	}
	for name, c := range map[string]struct {
		sign   func(l layout, on image) []*signed
		counts bool
	}{
		"one identity twice": {func(l layout, on image) []*signed {
			return []*signed{b.sign(l, on, certificate()).logged(), b.sign(l, on, certificate()).logged()}
		}, false},
		"two subjects of one entry": {func(l layout, on image) []*signed {
			return []*signed{b.sign(l, on, by("a@example.com")).logged(), b.sign(l, on, by("b@example.com")).logged()}
		}, false},
		"one key for two identities": {func(l layout, on image) []*signed {
			return []*signed{
				b.signWith(l, on, certificate(), shared).logged(),
				b.signWith(l, on, by("a@example.com"), shared).logged(),
			}
		}, false},
		"a listed key for an identity too": {func(l layout, on image) []*signed {
			return []*signed{
				b.signWith(l, on, certificate(), listed).logged(), b.signWith(l, on, nil, listed),
			}
		}, false},
		"two identities": {func(l layout, on image) []*signed {
			return []*signed{b.sign(l, on, certificate()).logged(), b.sign(l, on, by("a@example.com")).logged()}
		}, true},
		"an identity and a key": {func(l layout, on image) []*signed {
			return []*signed{b.sign(l, on, certificate()).logged(), b.signWith(l, on, nil, listed)}
		}, true},
	} {
		for _, l := range both() {
			on := b.push()
			b.pushSigned(on, c.sign(l, on)...)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil || (rolesOf(e) == "ci") != c.counts {
				t.Errorf("%s, %s: got %q and %v, want it to be enough: %t", name, l, rolesOf(e), err, c.counts)
			}
			if got := whys(e, "ci"); !c.counts && !strings.Contains(got, `and role "ci" needs 2 signers`) {
				t.Errorf("%s, %s: got rejections %q, want the threshold", name, l, got)
			}
		}
	}
}

// The certificate of another signer does not make a signature that signer's.
func TestThreatCertificateOfAnotherSigner(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	listed, byKey := newPrivate(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)),
		keyRole("qa", 1, byKey.pem)), b.TrustedRoot())
	for _, l := range both() {
		on := b.push()
		s := b.signWith(l, on, nil, listed)
		s.cert = b.sign(l, on, certificate()).cert
		b.pushSigned(on, s)
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "qa" {
			t.Errorf("%s: got %q and %v, want the role of the key alone", l, rolesOf(e), err)
		}
		if got := whys(e, "ci"); !strings.Contains(got, `and is a key of "qa" alone`) {
			t.Errorf("%s: got rejections %q, want whose key it is", l, got)
		}
	}
}

// A revoked key counts nowhere: in no certificate of a signer's chain, in no log and in no
// timestamp authority.
func TestThreatRevokedKeyOfAChain(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	s := b.sign(layoutBundle, on, certificate()).logged()
	b.pushSigned(on, s)
	withStamp := b.push()
	b.pushSigned(withStamp, b.sign(layoutBundle, withStamp, certificate()).stamped())
	idOf := func(public crypto.PublicKey) v1alpha1.KeyID {
		k, err := newKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return v1alpha1.KeyID(k.id)
	}
	const chain = "spec.revokedKeys lists a key of its certificate's chain"
	for name, c := range map[string]struct {
		key     crypto.PublicKey
		on      image
		because string
	}{
		"none":             {newSignerKey(t), on, ""},
		"leaf":             {s.private.Public(), on, "spec.revokedKeys lists"},
		"intermediate":     {b.Fulcio.Intermediate.PublicKey, on, chain},
		"root":             {b.Fulcio.Root.PublicKey, on, chain},
		"log":              {b.RekorV1.Key.Public(), on, "but its log entry is of no log of the trusted root"},
		"CT log":           {b.CT.Key.Public(), on, "but no certificate transparency log"},
		"timestamp leaf":   {b.TSA.Leaf.PublicKey, withStamp, "and it has no signed timestamp"},
		"timestamp root":   {b.TSA.Root.PublicKey, withStamp, "and it has no signed timestamp"},
		"timestamp, other": {newSignerKey(t), withStamp, ""},
	} {
		tr := b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)))
		tr.Spec.RevokedKeys = []v1alpha1.KeyID{idOf(c.key)}
		root := buildWith(t, tr, b.TrustedRoot())
		e, err := fetch(t, root, c.on.Name(), nil)
		if err != nil || (rolesOf(e) == "ci") != (c.because == "") {
			t.Errorf("%s: got %q and %v, want it to count: %t", name, rolesOf(e), err, c.because == "")
		}
		if got := whys(e, "ci"); !strings.Contains(got, c.because) {
			t.Errorf("%s: got rejections %q, want %q", name, got, c.because)
		}
	}
}

func newSignerKey(t *testing.T) crypto.PublicKey {
	t.Helper()
	private, _ := newPrivate(t)
	return private.Public()
}

// What a trusted root lists counts for the time at which it was valid, not for today. Only an entry
// without a time ends with the key of its log.
func TestThreatTrustedRootPeriods(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	private, byKey := newPrivate(t)
	verified := b.Time.Add(time.Minute)
	until := func(at time.Time) func(*prototrust.TrustedRoot) {
		return func(r *prototrust.TrustedRoot) {
			end := timestamppb.New(at)
			r.CertificateAuthorities[0].ValidFor.End, r.TimestampAuthorities[0].ValidFor.End = end, end
			for _, log := range append(r.Tlogs, r.Ctlogs...) {
				log.PublicKey.ValidFor.End = end
			}
		}
	}
	future := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct {
		make    func(*signed)
		key     bool
		log     v1alpha1.TransparencyLog
		end     time.Time
		because string
		expires time.Time
	}{
		"log, since retired": {
			make: func(s *signed) { s.logged() }, end: verified.Add(time.Minute),
		},
		"log, retired before": {
			make: func(s *signed) { s.logged() }, end: verified.Add(-time.Second),
			because: "but its log entry is not valid",
		},
		"stamp, since retired": {
			make: func(s *signed) { s.stamped() }, end: verified.Add(time.Minute),
		},
		"stamp, retired before": {
			make: func(s *signed) { s.stamped() }, end: verified.Add(-time.Second),
			because: "and it has no signed timestamp",
		},
		"log v2, since retired": {
			make: func(s *signed) { s.loggedV2().stamped() }, end: verified.Add(time.Minute),
		},
		"log v2, retired before": {
			make: func(s *signed) { s.loggedV2().stampedAt(verified) }, end: verified.Add(-time.Second),
			because: "the key of the log was not valid at the verified",
		},
		"log v2, in use before": {
			make: func(s *signed) { s.loggedV2().stampedAt(verified) }, end: verified.Add(-time.Second),
		},
		"log v2, in use only later": {
			make: func(s *signed) { s.loggedV2().stampedAt(verified) }, end: verified.Add(time.Second),
			because: "the key of the log was not valid at the verified",
		},
		"key, log v2, no time": {
			make: func(s *signed) { s.loggedV2() }, key: true, log: "Require", end: future, expires: future,
		},
		"key, log v2, and a time": {
			make: func(s *signed) { s.loggedV2().stamped() }, key: true, log: "Require", end: future,
		},
		"key, log v2, not needed": {
			make: func(s *signed) { s.loggedV2() }, key: true, end: future,
		},
		"key, log v1": {
			make: func(s *signed) { s.logged() }, key: true, log: "Require", end: future,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			edit := until(c.end)
			switch { // of the log alone
			case strings.HasPrefix(name, "log v2, retired"):
				edit = func(r *prototrust.TrustedRoot) { r.Tlogs[1].PublicKey.ValidFor.End = timestamppb.New(c.end) }
			case strings.HasPrefix(name, "log v2, in use"):
				edit = func(r *prototrust.TrustedRoot) { r.Tlogs[1].PublicKey.ValidFor.Start = timestamppb.New(c.end) }
			}
			role := identityRole("ci", 1, exactly(testIssuer, testSubject))
			if c.key {
				role = keyRole("ci", 1, byKey.pem)
			}
			root := buildWith(t, b.withTrusted(c.log, role), b.TrustedRoot(edit))
			on := b.push()
			s := b.signWith(layoutBundle, on, certificate(), private)
			if c.key {
				s = b.signWith(layoutBundle, on, nil, private)
			}
			c.make(s)
			b.pushSigned(on, s)
			checkCase(t, root, on, c.because)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.because == "" && !e.Statements("", "")[0].NotAfter.Equal(c.expires) {
				t.Errorf("got NotAfter %s, want %s", e.Statements("", "")[0].NotAfter, c.expires)
			}
		})
	}
}

// A certificate authority counts for the time at which the trusted root says that it was in use.
func TestThreatRetiredAuthority(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	b.pushSigned(on, b.sign(layoutTag, on, certificate()).logged())
	for end, because := range map[time.Time]string{
		b.Time.Add(2 * time.Minute):  "",
		b.Time.Add(30 * time.Second): "but no authority of the trusted root could issue",
	} {
		root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))),
			b.TrustedRoot(func(r *prototrust.TrustedRoot) {
				r.CertificateAuthorities[0].ValidFor.End = timestamppb.New(end)
			}))
		checkCase(t, root, on, because)
	}
}

// A trusted root without certificate transparency logs asks for no SCT.
func TestTrustedRootWithoutCTLogs(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	cert := certificate()
	cert.NoSCT = true
	b.pushSigned(on, b.sign(layoutTag, on, cert).logged())
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))),
		b.TrustedRoot(func(r *prototrust.TrustedRoot) { r.Ctlogs = nil }))
	checkCase(t, root, on, "")
}

// An intermediate certificate may come with the signature, where the trusted root has the root
// alone.
func TestIntermediateOfTheSignature(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))),
		b.TrustedRoot(func(r *prototrust.TrustedRoot) {
			chain := r.CertificateAuthorities[0].CertChain
			chain.Certificates = chain.Certificates[1:]
		}))
	for _, l := range both() {
		for _, has := range []bool{true, false} {
			on := b.push()
			s := b.sign(l, on, certificate()).logged()
			because := "has a certificate of no authority of the trusted root"
			if has {
				s.chain, because = []*x509.Certificate{b.Fulcio.Intermediate, b.Fulcio.Root}, ""
			}
			b.pushSigned(on, s)
			checkCase(t, root, on, because)
		}
	}
}

// A chain has at most ten certificates, even if the signature and the trusted root bring fewer
// each.
func TestThreatLongChain(t *testing.T) {
	t.Parallel()
	for n, because := range map[int]string{7: "", 8: "has a certificate of no authority of the trusted root"} {
		b := newIdentityBed(t)
		tr := b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)))
		root := buildWith(t, tr, b.TrustedRoot())
		chain := b.Deepen(n)
		on := b.push()
		s := b.sign(layoutTag, on, certificate()).logged()
		s.chain = chain
		b.pushSigned(on, s)
		checkCase(t, root, on, because)
	}
}

// What a trusted root needs and lacks is refused, with the field.
func TestUnusableTrustedRoot(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	identities := identityRole("ci", 1, exactly(testIssuer, testSubject))
	byKey := keyRole("ci", 1, newSigner(t).pem)
	none := func(r *prototrust.TrustedRoot) {
		r.CertificateAuthorities, r.Tlogs, r.TimestampAuthorities = nil, nil, nil
	}
	authorityOnly := func(r *prototrust.TrustedRoot) { r.Tlogs, r.TimestampAuthorities = nil, nil }
	for want, c := range map[string]struct {
		tr   *v1alpha1.TrustRoot
		root []byte
	}{
		"is not JSON":        {b.withTrusted("", identities), []byte("{")},
		"is no trusted root": {b.withTrusted("", identities), []byte("{}")},
		"is larger than the 256 KiB that are read": {
			b.withTrusted("", identities), []byte(`{"a":"` + strings.Repeat("a", trustedroot.MaxSize) + `"}`),
		},
		"lists no certificate authority": {b.withTrusted("", identities), b.TrustedRoot(none)},
		"lists no transparency log, and transparencyLog is Require": {
			b.withTrusted("Require", byKey), b.TrustedRoot(none),
		},
		"lists no timestamp authority, which identities need with transparencyLog: Ignore": {
			b.withTrusted("Ignore", identities), b.TrustedRoot(authorityOnly),
		},
		"lists neither a transparency log nor a timestamp authority": {
			b.withTrusted("", identities), b.TrustedRoot(authorityOnly),
		},
	} {
		_, err := Format{}.Build(c.tr, trust.Material{trustedSource: string(c.root)})
		const field = "spec.sigstore.trustedRoot.from (ConfigMap trusted-root, entry trusted_root.json): "
		if err == nil || !strings.Contains(err.Error(), field+want) {
			t.Errorf("got %v, want %q", err, field+want)
		}
		if fault, ok := errors.AsType[*trust.Fault](err); !ok || fault.Reason != v1alpha1.ReasonInvalidSpec {
			t.Errorf("got %v, want the fault InvalidSpec", err)
		}
	}
	for want, edit := range map[string]func(*v1alpha1.SigstoreSpec){
		"spec.sigstore.roles[0].identities[0].subjectRegExp: ": func(s *v1alpha1.SigstoreSpec) {
			s.Roles[0].Identities[0] = v1alpha1.SigstoreIdentity{Issuer: testIssuer, SubjectRegExp: "("}
		},
		"spec.sigstore.trustedRoot: is required where a role has identities": func(s *v1alpha1.SigstoreSpec) {
			s.TrustedRoot = nil
		},
		"spec.sigstore.trustedRoot: is required where a role has identities, and with transparencyLog: Require": func(
			s *v1alpha1.SigstoreSpec) {
			s.TrustedRoot, s.TransparencyLog, s.Roles = nil, "Require", []v1alpha1.SigstoreRole{byKey}
		},
		"spec.sigstore.roles[0].threshold: 2 keys and identities must sign, and the role has 1 distinct": func(
			s *v1alpha1.SigstoreSpec) {
			s.Roles[0].Threshold = 2
		},
	} {
		tr := b.withTrusted("", *identities.DeepCopy())
		edit(tr.Spec.Sigstore)
		_, err := Format{}.Build(tr, trust.Material{trustedSource: string(b.TrustedRoot())})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// While there is no trusted root yet, what needs it could not be checked, and the rest counts.
func TestThreatTrustedRootNotThere(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	private, byKey := newPrivate(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)),
		keyRole("qa", 1, byKey.pem)), b.TrustedRoot())
	v := root.Verifier.(*verifier)
	there := v.trusted
	v.trusted = func() (*trustedroot.Root, error) {
		return nil, trust.NewFault(v1alpha1.ReasonUnreachable, "the mirror is down")
	}
	on := b.push()
	b.pushSigned(on, b.sign(layoutBundle, on, certificate()).logged())
	about := root.Subject(parse(t, on.Name()))
	if e, err := root.Fetch(t.Context(), about, nil); err == nil {
		t.Errorf("by an identity: got %q, want a fault", rolesOf(e))
	}
	b.pushSigned(on, b.signWith(layoutTag, on, nil, private))
	held, err := root.Fetch(t.Context(), about, nil)
	if err != nil || rolesOf(held) != "qa" || len(held.Faults()) != 1 {
		t.Fatalf("by a key too: got %q and %v, want qa and a fault", rolesOf(held), err)
	}
	logged := b.push()
	b.pushSigned(logged, b.signWith(layoutBundle, logged, nil, private).logged())
	if e, err := fetch(t, root, logged.Name(), nil); err == nil {
		t.Errorf("by a key, with an entry that cannot be verified: got %q, want a fault", rolesOf(e))
	}
	v.trusted = there
	if e, err := root.Fetch(t.Context(), about, held); err != nil || rolesOf(e) != "ci,qa" || len(e.Faults()) != 0 {
		t.Errorf("once it is there: got %q and %v, want both roles and no fault", rolesOf(e), err)
	}
}

// Once the trusted root changes, what was verified with the old one is verified again, even if the
// registry has nothing new.
func TestThreatTrustedRootRotates(t *testing.T) {
	t.Parallel()
	b, other := newIdentityBed(t), newIdentityBed(t)
	root := buildWith(t, b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject))), b.TrustedRoot())
	v := root.Verifier.(*verifier)
	of := func(i *sigstoreinstance.Instance) func() (*trustedroot.Root, error) {
		parsed, err := trustedroot.Parse(i.TrustedRoot())
		if err != nil {
			t.Fatal(err)
		}
		return func() (*trustedroot.Root, error) { return parsed, nil }
	}
	on := b.push()
	b.pushSigned(on, b.sign(layoutBundle, on, certificate()).logged())
	held, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(held) != "ci" {
		t.Fatalf("before: got %q and %v, want ci", rolesOf(held), err)
	}
	if again, err := fetch(t, root, on.Name(), held); err != nil || again != held {
		t.Errorf("nothing has changed: got %v, want the same evidence", err)
	}
	v.trusted = of(other.Instance)
	gone, err := fetch(t, root, on.Name(), held)
	if err != nil || rolesOf(gone) != "" {
		t.Errorf("with another trusted root: got %q and %v, want no role", rolesOf(gone), err)
	}
	v.trusted = of(b.Instance)
	if again, err := fetch(t, root, on.Name(), gone); err != nil || rolesOf(again) != "ci" {
		t.Errorf("with the first one again: got %q and %v, want ci", rolesOf(again), err)
	}
}

// A timestamp may bring the certificate of its authority. A revoked key of that does not count
// either.
func TestThreatRevokedTimestampCertificate(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	on := b.push()
	b.pushSigned(on, b.sign(layoutTag, on, certificate()).stamped())
	withoutLeaf := b.TrustedRoot(func(r *prototrust.TrustedRoot) {
		chain := r.TimestampAuthorities[0].CertChain
		chain.Certificates = chain.Certificates[1:]
	})
	leaf, err := newKey(b.TSA.Leaf.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for revoked, because := range map[string]string{
		strings.Repeat("0", 64): "", leaf.id: "and it has no signed timestamp",
	} {
		tr := b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)))
		tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(revoked)}
		checkCase(t, buildWith(t, tr, withoutLeaf), on, because)
	}
}

// Under signedRepository: Match, identities count only for the repository that they name.
func TestThreatIdentityOfAnotherRepository(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	tr := b.withTrusted("", identityRole("ci", 1, exactly(testIssuer, testSubject)))
	tr.Spec.Sigstore.SignedRepository = v1alpha1.SignedRepositoryMatch
	root := buildWith(t, tr, b.TrustedRoot())
	for _, l := range both() {
		on := b.push()
		b.pushSigned(on, b.sign(l, on, certificate()).logged())
		checkCase(t, root, on, "but names no repository, and signedRepository is Match")
	}
}
