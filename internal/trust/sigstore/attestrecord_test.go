package sigstore

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
)

// What is recorded decides the same after a restart. What does not decide is not recorded.
func TestAttestationsAreRecorded(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := b.attestedRoot(24*time.Hour, nil)
	for _, l := range both() {
		for name, newer := range map[string]bool{"a good one": true, "a bad one": false} {
			on := b.push()
			other := b.attestation(on, false, 3*time.Minute, certificate(func(c *sigstoreinstance.Certificate) {
				c.Subject = "x"
			}))
			b.pushAttestations(l, on, append(b.two(on, true, newer), other)...)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil {
				t.Fatal(err)
			}
			packed, err := root.Verifier.Pack(e)
			if err != nil || packed == nil {
				t.Fatalf("%s, %s: got a record of %d bytes and %v", l, name, len(packed), err)
			}
			c, err := unpack(packed)
			if err != nil || len(c.Attestations.All) != 1 {
				t.Fatalf("%s, %s: got %v and %v, want only the attestation that decides", l, name, c, err)
			}
			restarted := b.attestedRoot(24*time.Hour, nil)
			f := withFaults(restarted)
			f.any = trust.NewFault(v1alpha1.ReasonServerError, "the server failed")
			about := restarted.Subject(parse(t, on.Name()))
			again, err := restarted.Verifier.Unpack(about, packed, nil)
			if err != nil || !slices.EqualFunc(again.Statements("", ""), e.Statements("", ""), sameStatement) ||
				len(again.Faults()) != 0 {
				t.Errorf("%s, %s: got %v, %v, want %v", l, name, again, err, e.Statements("", ""))
			}
			if len(f.requests) != 0 {
				t.Errorf("%s, %s: got requests %q, want none", l, name, f.requests)
			}
		}
	}
}

// A record that was forged or damaged proves nothing.
func TestThreatForgedRecordOfAttestations(t *testing.T) {
	t.Parallel()
	b, qa, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), tested(qa)))
	v := root.Verifier.(*verifier)
	on, second := b.push(), b.push()
	b.attestIn(layoutTag, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	e, err := fetch(t, root, on.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	record, err := v.Pack(e)
	if err != nil {
		t.Fatal(err)
	}
	content := func(data []byte) func(c *collection) {
		return func(c *collection) {
			one := &c.Attestations.All[0]
			one.Size = int64(len(data))
			if one.Content, err = v.packer.Compress(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		edit  func(c *collection)
		about image
		want  string
	}{
		"as it was":            {func(*collection) {}, on, "tested"},
		"of another image":     {func(*collection) {}, second, ""},
		"by another key":       {content(dsseOf(t, other, passed(true, loadTest, on.DigestStr()))), on, ""},
		"larger than said":     {func(c *collection) { c.Attestations.All[0].Size-- }, on, ""},
		"larger than any":      {func(c *collection) { c.Attestations.All[0].Size = maxAttestedBytes + 1 }, on, ""},
		"of a negative size":   {func(c *collection) { c.Attestations.All[0].Size = -1 }, on, ""},
		"not compressed":       {func(c *collection) { c.Attestations.All[0].Content = []byte("x") }, on, ""},
		"without attestations": {func(c *collection) { c.Attestations = nil }, on, ""},
		"a part":               {func(c *collection) { c.Attestations.Unread = []layout{layoutTag} }, on, ""},
		"of another type":      {func(c *collection) { c.Attestations.Types = []string{scan} }, on, ""},
		"with a text":          {func(c *collection) { c.Attestations.All[0].Why = "a made-up reason" }, on, ""},
	} {
		col, err := unpack(record)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(col)
		edited, err := v.packer.Pack(col)
		if err != nil {
			t.Fatal(err)
		}
		e, err := v.Unpack(root.Subject(parse(t, c.about.Name())), edited, nil)
		if err == nil {
			if got := rolesOf(e); got != c.want {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
			if strings.Contains(whys(e, "tested"), "made-up") {
				t.Errorf("%s: a denial shows the text of a record", name)
			}
		} else if c.want != "" {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// After an edit of the TrustRoot, held attestations are judged by the new conditions, without a
// request. Attestations of a type that was not fetched yet prove nothing before they are.
func TestThreatEditReachesHeldAttestations(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	with := func(revoked string, roles ...v1alpha1.SigstoreRole) *Root {
		tr := trustRoot(b.settings(), roles...)
		if revoked != "" {
			tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(revoked)}
		}
		return build(t, tr)
	}
	role := keyRole("tested", 1, qa.pem)
	first := with("", attestedBy(role, loadTest, "predicate.passed == true"))
	for _, l := range both() {
		on := b.push()
		b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
		if l == layoutTag {
			b.attestTag(on, attestationLayer(dsseOf(t, qa, passed(true, loadTest, on.DigestStr())), loadTest),
				attestationLayer(dsseOf(t, qa, passed(true, scan, on.DigestStr())), scan))
		} else {
			b.attestIn(l, on, qa, scan, passed(true, scan, on.DigestStr()))
		}
		held, err := fetch(t, first, on.Name(), nil)
		if err != nil || rolesOf(held) != "tested" {
			t.Fatalf("%s: got %q and %v, want the role", l, rolesOf(held), err)
		}
		about := first.Subject(parse(t, on.Name()))
		for name, c := range map[string]struct {
			root        *Root
			want, after string
		}{
			"another condition": {with("", attestedBy(role, loadTest, "predicate.passed == false")), "", ""},
			"a revoked key":     {with(qa.id, attestedBy(role, loadTest)), "", ""},
			"no condition":      {with("", attestedBy(role, loadTest)), "tested", "tested"},
			"another type":      {with("", attestedBy(role, scan)), "", "tested"},
			"a signature":       {with("", role), "", ""},
		} {
			e, err := c.root.Recheck(about, held)
			if err != nil || rolesOf(e) != c.want {
				t.Errorf("%s, %s: got %q and %v, want %q", l, name, rolesOf(e), err, c.want)
				continue
			}
			if e, err = fetch(t, c.root, on.Name(), e); err != nil || rolesOf(e) != c.after {
				t.Errorf("%s, %s, fetched again: got %q and %v, want %q", l, name, rolesOf(e), err, c.after)
			}
		}
	}
}

// Verifying an attestation takes no more memory than is acquired for it.
func TestThreatMemoryOfAnAttestation(t *testing.T) {
	b, qa := newRegistryBed(t), newSigner(t)
	v := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest))).Verifier.(*verifier)
	on := b.push()
	for _, l := range both() {
		for _, size := range []int{1 << 10, 1 << 20, 5 << 20} {
			content := append(passed(true, loadTest, on.DigestStr()), bytes.Repeat([]byte(" "), size)...)
			data := dsseOf(t, qa, content)
			if l == layoutBundle {
				data = envelope(t, qa, bundleType, content)
			}
			compressed, err := v.packer.Compress(data)
			if err != nil {
				t.Fatal(err)
			}
			a := &attested{Layout: l, Content: compressed, Size: int64(len(data))}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			j, verified, err := v.judgeAttested(t.Context(), a)
			runtime.ReadMemStats(&after)
			if err != nil || verified == nil {
				t.Fatalf("%s, %d bytes: got %v and %v", l, size, j, err)
			}
			if got, bound := after.TotalAlloc-before.TotalAlloc, uint64(a.cost()); got > bound {
				t.Errorf("%s, %d bytes: got %d bytes allocated, want at most %d", l, size, got, bound)
			}
		}
	}
}

// An attestation whose log entry comes later counts once it has come, though its envelope is the
// same.
func TestAttestationThatIsLoggedLater(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	root := b.attestedRoot(0, nil)
	on := b.push()
	s := b.sign(layoutBundle, on, certificate()).stated(passed(true, loadTest, on.DigestStr()))
	b.pushAttestations(layoutTag, on, s)
	held, err := fetch(t, root, on.Name(), nil)
	if err != nil || rolesOf(held) != "" || !strings.Contains(whys(held, "tested"), "it is not in a transparency log") {
		t.Fatalf("got %q and %v, want no role: %s", rolesOf(held), err, whys(held, "tested"))
	}
	b.pushAttestations(layoutTag, on, s.logged())
	if e, err := fetch(t, root, on.Name(), held); err != nil || rolesOf(e) != "tested" {
		t.Errorf("logged: got %q and %v, want the role: %s", rolesOf(e), err, whys(e, "tested"))
	}
}
