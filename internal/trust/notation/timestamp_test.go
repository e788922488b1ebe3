package notation

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// stampedBy adds a timestamp to a JWS envelope.
func stampedBy(t *testing.T, raw []byte, by stamper) []byte {
	t.Helper()
	return editHeader(t, raw, func(header map[string]any, encoded string) {
		message, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		header["io.cncf.notary.timestampSignature"] = by.stamp(t, message)
	})
}

// A signature counts past the end of its certificate if a listed authority has timestamped it while
// the certificate was valid. Otherwise it counts until then.
func TestThreatNotationTimestamps(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca, tsaCA, otherCA := issue(t, nil, "ca", asCA), issue(t, nil, "tsa ca", asCA), issue(t, nil, "other", asCA)
	leaf := issue(t, ca, "ci", until(epoch.Add(time.Hour)))
	tsa, other := issue(t, tsaCA, "tsa", asAuthority), issue(t, otherCA, "tsa", asAuthority)
	noTSA, dead := issue(t, tsaCA, "web"), issue(t, tsaCA, "tsa", asAuthority, until(epoch.Add(-time.Minute)))
	tr := b.trustRoot(caRole("ci", 1, []*certificate{ca}))
	bare := b.build(tr)
	listing := tr.DeepCopy()
	listing.Spec.Notation.TimestampAuthorities = v1alpha1.TimestampBundle(tsaCA.pem())
	root := b.build(listing)
	stamp := func(by stamper) func(raw []byte) []byte {
		return func(raw []byte) []byte { return stampedBy(t, raw, by) }
	}
	var last []byte
	for name, c := range map[string]struct {
		edit            func(raw []byte) []byte
		before, after   string // the roles, before and after the certificate expires
		because, ofBare string
	}{
		"no timestamp": {
			func(raw []byte) []byte { return raw }, "ci", "", "which expired at ", "the signature has no timestamp",
		},
		"while it was valid": {
			stamp(stamper{tsa, epoch}), "ci", "ci", "",
			"its timestamp does not count without spec.notation.timestampAuthorities",
		},
		"before it was valid": {
			stamp(stamper{tsa, epoch.Add(-time.Hour)}), "", "", "outside the validity of the certificate", "",
		},
		"after it was valid": {
			stamp(stamper{tsa, epoch.Add(time.Hour)}), "", "", "outside the validity of the certificate", "",
		},
		"by another authority": {stamp(stamper{other, epoch}), "", "", "has a timestamp that does not verify", ""},
		"by no authority":      {stamp(stamper{noTSA, epoch}), "", "", "has a timestamp that does not verify", ""},
		"by an expired one":    {stamp(stamper{dead, epoch}), "", "", "has a timestamp that does not verify", ""},
		"of another signature": {
			func(raw []byte) []byte { return of(t, raw, signed(t, leaf, "x"), stamper{tsa, epoch}) }, "", "",
			"mismatched message", "",
		},
		"that is none": {
			func(raw []byte) []byte { return none(t, raw) }, "", "", "has a timestamp that does not verify", "",
		},
	} {
		b.now = epoch
		on := b.push()
		last = c.edit(signed(t, leaf, on.DigestStr()))
		b.attach(on, jws.MediaTypeEnvelope, last)
		e, err := b.fetch(root, on, nil)
		if err != nil || b.roles(e) != c.before {
			t.Errorf("%s: got %q and %v, want %q", name, b.roles(e), err, c.before)
		}
		b.now = epoch.Add(2 * time.Hour)
		if b.roles(e) != c.after {
			t.Errorf("%s, past the certificate: held: got %q, want %q", name, b.roles(e), c.after)
		}
		if e, err = b.fetch(
			root,
			on,
			e,
		); err != nil || b.roles(e) != c.after ||
			!strings.Contains(whys(e, "ci"), c.because) {
			t.Errorf(
				"%s, past the certificate: got %q, %q and %v, want %q",
				name,
				b.roles(e),
				whys(e, "ci"),
				err,
				c.after,
			)
		}
		if e, err = b.fetch(
			bare,
			on,
			nil,
		); err != nil || b.roles(e) != "" ||
			!strings.Contains(whys(e, "ci"), c.ofBare) {
			t.Errorf("%s, without authorities: got %q, %q and %v, want no role", name, b.roles(e), whys(e, "ci"), err)
		}
	}
}

// of stamps another signature, and puts that into an envelope.
func of(t *testing.T, raw, other []byte, by stamper) []byte {
	t.Helper()
	var token any
	editHeader(t, stampedBy(t, other, by), func(header map[string]any, _ string) {
		token = header["io.cncf.notary.timestampSignature"]
	})
	return editHeader(
		t,
		raw,
		func(header map[string]any, _ string) { header["io.cncf.notary.timestampSignature"] = token },
	)
}

func none(t *testing.T, raw []byte) []byte {
	t.Helper()
	return editHeader(t, raw, func(header map[string]any, _ string) {
		header["io.cncf.notary.timestampSignature"] = []byte("x")
	})
}

// A timestamp does not count if its authority is revoked, and could not be checked where that
// fails.
func TestThreatRevokedTimestampAuthority(t *testing.T) {
	t.Parallel()
	b, server := newBed(t), newRevoking(t)
	ca, tsaCA := issue(t, nil, "ca", asCA), issue(t, nil, "tsa ca", asCA)
	server.issuer = tsaCA
	leaf, tsa := issue(t, ca, "ci"), issue(t, tsaCA, "tsa", asAuthority, server.byOCSP)
	tr := b.trustRoot(caRole("ci", 1, []*certificate{ca}))
	tr.Spec.Notation.TimestampAuthorities = v1alpha1.TimestampBundle(tsaCA.pem())
	on := b.push()
	b.attach(on, jws.MediaTypeEnvelope, stampedBy(t, signed(t, leaf, on.DigestStr()), stamper{tsa, epoch}))
	if e, err := b.fetch(b.build(tr), on, nil); err != nil || b.roles(e) != "ci" || server.requests() != 1 {
		t.Fatalf("got %q and %v, want ci by one request", b.roles(e), err)
	}
	server.revoked[tsa.SerialNumber.String()] = true
	b.restart()
	if e, err := b.fetch(b.build(tr), on, nil); err != nil || b.roles(e) != "" || len(e.Faults()) > 0 {
		t.Errorf("revoked: got %q, %v and %v, want a verdict", b.roles(e), e, err)
	}
	server.Close()
	b.restart()
	if e, err := b.fetch(b.build(tr), on, nil); err != nil || b.roles(e) != "" || len(e.Faults()) != 1 {
		t.Errorf("not checked: got %q, %v and %v, want a fault", b.roles(e), e, err)
	}
	revoking := tr.DeepCopy()
	revoking.Spec.Notation.Revocation = v1alpha1.RevocationSkip
	revoking.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(keyID(tsa.Certificate))}
	if e, err := b.fetch(b.build(revoking), on, nil); err != nil || b.roles(e) != "" {
		t.Errorf("in spec.revokedKeys: got %q and %v, want no role", b.roles(e), err)
	}
}

// A signature that says until when it counts ends then, by time alone.
func TestThreatNotationSignatureThatExpires(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca := issue(t, nil, "ca", asCA)
	first, second := issue(t, ca, "first"), issue(t, ca, "second")
	root := b.build(b.trustRoot(caRole("any", 1, []*certificate{ca}), caRole("both", 2, []*certificate{ca})))
	on := b.push()
	for by, hours := range map[*certificate]int{first: 1, second: 3} {
		for name, mediaType := range mediaTypes() {
			more := -time.Duration(len(name)-3) * time.Minute // the two expire at different times
			req := request(t, by, on.DigestStr())
			req.Expiry = epoch.Add(time.Duration(hours)*time.Hour + more)
			b.attach(on, mediaType, envelope(t, mediaType, req))
		}
	}
	held, err := b.fetch(root, on, nil)
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := held.Expiry(); !end.IsZero() {
		t.Errorf("got evidence that expires at %v, want only its statements to", end)
	}
	for hours, want := range map[int]string{0: "any,both", 1: "any", 2: "any", 3: ""} {
		b.now = epoch.Add(time.Duration(hours) * time.Hour)
		fetched, err := b.fetch(root, on, held)
		if err != nil {
			t.Fatal(err)
		}
		checked, err := root.Recheck(about(t, root, on), held)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]string{b.roles(held), b.roles(fetched), b.roles(checked)}; got != [3]string{want, want, want} {
			t.Errorf("after %d hours: got %q held, fetched and checked, want %q", hours, got, want)
		}
	}
}
