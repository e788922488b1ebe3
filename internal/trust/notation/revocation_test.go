package notation

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// revocable is a bed with a CA, an intermediate CA, and servers that say what they have revoked.
type revocable struct {
	*bed

	ca, middle, leaf *certificate
	byRoot, byMiddle *revoking // about the intermediate certificate, and about the leaf
	root             *Root
	on               image
}

// newRevocable returns an image that is signed by a leaf whose servers names sets.
func newRevocable(t *testing.T, names func(*revoking) func(*x509.Certificate)) *revocable {
	t.Helper()
	r := &revocable{bed: newBed(t), byRoot: newRevoking(t), byMiddle: newRevoking(t)}
	r.ca = issue(t, nil, "ca", asCA)
	r.middle = issue(t, r.ca, "middle", asCA, names(r.byRoot))
	r.leaf = issue(t, r.middle, "ci", names(r.byMiddle))
	r.byRoot.issuer, r.byMiddle.issuer = r.ca, r.middle
	r.root, r.on = r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca}))), r.push()
	r.sign(r.on, r.leaf)
	return r
}

// requests returns how many requests both servers had.
func (r *revocable) requests() int { return r.byRoot.requests() + r.byMiddle.requests() }

// sources are the two ways in which a certificate names its servers.
func sources() map[string]func(*revoking) func(*x509.Certificate) {
	return map[string]func(*revoking) func(*x509.Certificate){
		"OCSP": func(r *revoking) func(*x509.Certificate) { return r.byOCSP },
		"CRL":  func(r *revoking) func(*x509.Certificate) { return r.byCRL },
	}
}

// A certificate that its CA has revoked, below the trust store, counts no longer: the signer's and
// that of an intermediate CA. revocation: Skip sends no request.
func TestThreatRevokedNotationCertificate(t *testing.T) {
	t.Parallel()
	for name, names := range sources() {
		r := newRevocable(t, names)
		held, err := r.fetch(r.root, r.on, nil)
		if err != nil || r.roles(held) != "ci" || r.requests() != 2 {
			t.Fatalf("%s: got %q and %v, want ci by two requests", name, r.roles(held), err)
		}
		for which, revoke := range map[string]func(){
			"leaf":         func() { r.byMiddle.revoked[r.leaf.SerialNumber.String()] = true },
			"intermediate": func() { r.byRoot.revoked[r.middle.SerialNumber.String()] = true },
		} {
			r.restart()
			root := r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca})))
			revoke()
			e, err := r.fetch(root, r.on, nil)
			if err != nil || r.roles(e) != "" || len(e.Faults()) > 0 {
				t.Errorf("%s, %s: got %q, %v and %v, want a verdict without a role", name, which, r.roles(e), e, err)
			}
			if got := whys(e, "ci"); !strings.Contains(got, "was revoked at ") {
				t.Errorf("%s, %s: got rejections %q, want the revocation", name, which, got)
			}
			clear(r.byMiddle.revoked)
			clear(r.byRoot.revoked)
		}
		r.requests()
		skipping := r.trustRoot(caRole("ci", 1, []*certificate{r.ca}))
		skipping.Spec.Notation.Revocation = v1alpha1.RevocationSkip
		r.byMiddle.revoked[r.leaf.SerialNumber.String()] = true
		e, err := r.fetch(r.build(skipping), r.on, nil)
		if err != nil || r.roles(e) != "ci" || r.requests() != 0 {
			t.Errorf("%s, with Skip: got %q and %v, want ci without a request", name, r.roles(e), err)
		}
	}
}

// A check that fails, or an answer that does not count, is "could not check": never a verdict, and
// never "not revoked".
func TestThreatRevocationThatCouldNotBeChecked(t *testing.T) {
	t.Parallel()
	status := func(code int, body string) func(r *revocable) {
		return func(r *revocable) {
			r.byMiddle.reply = func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(code)
				_, _ = w.Write([]byte(body))
				return true
			}
		}
	}
	both := map[string]func(r *revocable){
		"down":              func(r *revocable) { r.byMiddle.Close() },
		"status 500":        status(http.StatusInternalServerError, ""),
		"status 429":        status(http.StatusTooManyRequests, ""),
		"status 404":        status(http.StatusNotFound, ""),
		"a web page":        status(http.StatusOK, "<html>log in</html>"),
		"nothing":           status(http.StatusOK, ""),
		"megabytes":         status(http.StatusOK, strings.Repeat("x", maxCRL+1)),
		"by another CA":     func(r *revocable) { r.byMiddle.issuer = issue(r.t, nil, "middle", asCA) },
		"by the CA above":   func(r *revocable) { r.byMiddle.issuer = r.ca },
		"of yesterday":      func(r *revocable) { r.byMiddle.from, r.byMiddle.end = epoch.Add(-48*time.Hour), epoch },
		"of tomorrow":       func(r *revocable) { r.byMiddle.from = epoch.Add(time.Hour) },
		"a redirect inside": status(http.StatusFound, ""),
	}
	for name, names := range sources() {
		for fault, cause := range both {
			couldNotCheck(t, name+", "+fault, names, cause)
		}
	}
	ocspOnly := map[string]func(r *revocable){
		"an unknown certificate": func(r *revocable) { r.byMiddle.unknown = true },
		"vouched for by itself":  func(r *revocable) { r.byMiddle.by, r.byMiddle.embed = r.leaf, r.leaf.Certificate },
		"by a sibling":           func(r *revocable) { r.by(issue(r.t, r.middle, "sibling")) },
		"by another CA's responder": func(r *revocable) {
			r.by(issue(r.t, issue(r.t, nil, "x", asCA), "ocsp", usages(x509.ExtKeyUsageOCSPSigning)))
		},
		"by an expired responder": func(r *revocable) {
			r.by(issue(r.t, r.middle, "ocsp", usages(x509.ExtKeyUsageOCSPSigning), until(epoch)))
		},
		"by a responder that SHA-1 vouches for": func(r *revocable) {
			r.by(issue(r.t, r.middle, "ocsp", usages(x509.ExtKeyUsageOCSPSigning), func(c *x509.Certificate) {
				c.SignatureAlgorithm = x509.ECDSAWithSHA1
			}))
		},
		"signed with SHA-1": func(r *revocable) { r.byMiddle.algorithm = x509.ECDSAWithSHA1 },
	}
	for fault, cause := range ocspOnly {
		couldNotCheck(t, fault, sources()["OCSP"], cause)
	}
	for fault, cause := range scopes() {
		couldNotCheck(t, fault, sources()["CRL"], cause)
	}
}

// by makes a certificate sign the OCSP responses.
func (r *revocable) by(c *certificate) { r.byMiddle.by, r.byMiddle.embed = c, c.Certificate }

// scopes are CRLs that do not say enough about the leaf.
func scopes() map[string]func(r *revocable) {
	scope := func(critical bool, id []int, value ...byte) func(r *revocable) {
		return func(r *revocable) {
			r.byMiddle.crl = func(l *x509.RevocationList) {
				l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: value}}
			}
		}
	}
	point := []int{2, 5, 29, 28}
	url := "http://localhost/x"
	other := append(
		[]byte{0x30, byte(len(url) + 6), 0xa0, byte(len(url) + 4), 0xa0, byte(len(url) + 2), 0x86, byte(len(url))},
		url...)
	return map[string]func(r *revocable){
		"a delta":                     scope(true, []int{2, 5, 29, 27}, 2, 1, 1),
		"an unknown extension":        scope(true, []int{1, 2, 3}, 5, 0),
		"of CAs alone":                scope(true, point, 0x30, 3, 0x82, 1, 0xff),
		"of attributes alone":         scope(true, point, 0x30, 3, 0x85, 1, 0xff),
		"of some reasons":             scope(true, point, 0x30, 4, 0x83, 2, 1, 0x80),
		"indirect":                    scope(true, point, 0x30, 3, 0x84, 1, 0xff),
		"of another URL":              scope(true, point, other...),
		"of another URL, by the way":  scope(false, point, other...),
		"of a scope that is garbage":  scope(true, point, 0x30, 9),
		"of a scope with more behind": scope(true, point, 0x30, 0, 1),
	}
}

func couldNotCheck(t *testing.T, name string, names func(*revoking) func(*x509.Certificate), cause func(*revocable)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		r := newRevocable(t, names)
		cause(r)
		e, err := r.fetch(r.root, r.on, nil)
		if err != nil {
			t.Fatalf("got %v, want evidence with a fault", err)
		}
		if r.roles(e) != "" || len(e.Faults()) != 1 {
			t.Fatalf("got %q and faults %v, want no role and one fault", r.roles(e), e.Faults())
		}
		if text := e.Faults()[0].Error(); !strings.Contains(text, `"CN=ci,O=acme,ST=WA,C=US" could not be checked for `+
			"revocation") {
			t.Errorf("got the fault %q, want it to name the certificate", text)
		}
		if !e.Signed() {
			t.Error("got evidence that is not signed, want it to count among the signed ones")
		}
	})
}

// Answers that say what a CA may say about its own certificates count.
func TestRevocationAnswers(t *testing.T) {
	t.Parallel()
	delegate := func(r *revocable) { r.by(issue(r.t, r.middle, "ocsp", usages(x509.ExtKeyUsageOCSPSigning))) }
	own := func(r *revocable) {
		url := r.byMiddle.URL + "/ca.crl"
		n := byte(len(url))
		r.byMiddle.crl = func(l *x509.RevocationList) {
			value := append([]byte{0x30, n + 9, 0xa0, n + 4, 0xa0, n + 2, 0x86, n}, url...)
			l.ExtraExtensions = []pkix.Extension{
				{Id: []int{2, 5, 29, 28}, Critical: true, Value: append(value, 0x81, 1, 0xff)},
			}
		}
	}
	two := func(r *revoking) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			r.byCRL(c)
			c.OCSPServer = []string{"ldap://localhost/x", "http://localhost:1/down", r.URL + "/ocsp"}
		}
	}
	fallback := func(r *revoking) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			r.byCRL(c)
			c.OCSPServer = []string{r.URL + "/none.crl"}
			c.CRLDistributionPoints = append(c.CRLDistributionPoints, "ldap://localhost/x")
		}
	}
	for name, c := range map[string]struct {
		names func(*revoking) func(*x509.Certificate)
		set   func(*revocable)
	}{
		"by a responder of the CA":      {sources()["OCSP"], delegate},
		"a CRL of its URL and of users": {sources()["CRL"], own},
		"by the second responder":       {two, func(*revocable) {}},
		"by CRL where OCSP fails":       {fallback, func(*revocable) {}},
	} {
		r := newRevocable(t, c.names)
		c.set(r)
		if e, err := r.fetch(r.root, r.on, nil); err != nil || r.roles(e) != "ci" || len(e.Faults()) > 0 {
			t.Errorf("%s: got %q, %v and %v, want ci", name, r.roles(e), e.Faults(), err)
		}
		r.byMiddle.revoked[r.leaf.SerialNumber.String()] = true
		r.restart()
		root := r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca})))
		if e, err := r.fetch(root, r.on, nil); err != nil || r.roles(e) != "" || len(e.Faults()) > 0 {
			t.Errorf("%s, revoked: got %q, %v and %v, want a verdict", name, r.roles(e), e.Faults(), err)
		}
	}
}

// A signature makes the operator send requests only where a CA of a role has issued the certificate
// that names the server. Anyone can make other certificates, and put them above the trust store.
func TestThreatRevocationAsksOnlyNamedServers(t *testing.T) {
	t.Parallel()
	b, inside := newBed(t), newRevoking(t)
	ca := issue(t, nil, "ca", asCA)
	middle := issue(t, ca, "middle", asCA)
	leaf := issue(t, middle, "ci")
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{middle}, "CN=ci")))
	inside.issuer = ca

	evilCA := issue(t, nil, "evil", asCA)
	foreign := issue(t, evilCA, "ci", inside.byOCSP, inside.byCRL)
	identity := issue(t, middle, "other", inside.byOCSP)
	// The root's own key and name, in a certificate that another CA has issued and that names a
	// server.
	cross := certify(t, evilCA, edited(ca.Certificate, inside.byOCSP, inside.byCRL), ca.key)
	on := b.push()
	b.sign(on, foreign)
	b.sign(on, identity)
	b.attach(on, jws.MediaTypeEnvelope, withChain(t, signed(t, leaf, on.DigestStr()),
		leaf.Certificate, middle.Certificate, cross.Certificate, evilCA.Certificate))
	e, err := b.fetch(root, on, nil)
	if err != nil || b.roles(e) != "ci" {
		t.Errorf("got %q and %v, want ci by the listed intermediate", b.roles(e), err)
	}
	if n := inside.requests(); n != 0 {
		t.Errorf("got %d requests to a server that no trusted CA names, want none", n)
	}

	for _, address := range []string{"169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "100.100.100.200"} {
		leaf := issue(t, middle, "ci", func(c *x509.Certificate) { c.OCSPServer = []string{"http://" + address + "/"} })
		on := b.push()
		b.sign(on, leaf)
		e, err := b.fetch(root, on, nil)
		if err != nil || b.roles(e) != "" || len(e.Faults()) != 1 ||
			e.Faults()[0].Reason != v1alpha1.ReasonAddressRefused {
			t.Errorf("%s: got %q, %v and %v, want the address refused", address, b.roles(e), e, err)
		}
	}
}

// edited returns a copy of a certificate as a template.
func edited(of *x509.Certificate, edit ...func(*x509.Certificate)) *x509.Certificate {
	template := *of
	template.PublicKey = nil
	for _, e := range edit {
		e(&template)
	}
	return &template
}

// An answer about another certificate does not count, although its serial number is the same and
// one key answers for both CAs.
func TestThreatRevocationAnswerOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	r := newRevocable(t, sources()["OCSP"])
	otherCA := certify(t, nil, edited(r.middle.Certificate, func(c *x509.Certificate) {
		c.Subject, c.SerialNumber = subjectNamed("other"), r.ca.SerialNumber
	}), newKey(t))
	responder := issue(t, r.middle, "ocsp", usages(x509.ExtKeyUsageOCSPSigning))
	r.byMiddle.issuer = otherCA // the response names it
	r.by(responder)
	e, err := r.fetch(r.root, r.on, nil)
	if err != nil || r.roles(e) != "" || len(e.Faults()) != 1 ||
		!strings.Contains(e.Faults()[0].Error(), "about a certificate of another issuer") {
		t.Errorf("got %q, %v and %v, want the answer refused", r.roles(e), e, err)
	}
}

// An older answer that is repeated does not take the place of a newer one that says "revoked".
func TestThreatOlderRevocationAnswer(t *testing.T) {
	t.Parallel()
	for name, names := range sources() {
		r := newRevocable(t, names)
		r.byMiddle.revoked[r.leaf.SerialNumber.String()] = true
		held, err := r.fetch(r.root, r.on, nil)
		if err != nil || r.roles(held) != "" {
			t.Fatalf("%s: got %q and %v", name, r.roles(held), err)
		}
		r.now = epoch.Add(20 * time.Hour) // a new answer is fetched
		clear(r.byMiddle.revoked)
		r.byMiddle.from = epoch.Add(-2 * time.Hour)
		e, err := r.fetch(r.root, r.on, held)
		if err != nil || r.roles(e) != "" {
			t.Errorf("%s: got %q and %v, want the newer answer to count", name, r.roles(e), err)
		}
		r.byMiddle.from = r.now.Add(-time.Minute)
		r.byMiddle.end = r.now.Add(24 * time.Hour)
		if e, err = r.fetch(r.root, r.on, e); err != nil || r.roles(e) != "ci" {
			t.Errorf("%s: a newer one: got %q and %v, want ci", name, r.roles(e), err)
		}
	}
}

// An older answer that ends later does not take the place of one that says "revoked" and has ended,
// and nor does one of the same time.
func TestThreatRevokedUntilANewerAnswer(t *testing.T) {
	t.Parallel()
	for name, names := range sources() {
		r := newRevocable(t, names)
		r.byRoot.end = epoch.Add(72 * time.Hour)
		r.byMiddle.revoked[r.leaf.SerialNumber.String()] = true
		held, err := r.fetch(r.root, r.on, nil)
		if err != nil || r.roles(held) != "" {
			t.Fatalf("%s: got %q and %v, want no role", name, r.roles(held), err)
		}
		clear(r.byMiddle.revoked)
		r.now, r.byMiddle.end = epoch.Add(30*time.Hour), epoch.Add(48*time.Hour)
		for _, from := range []time.Time{epoch.Add(-2 * time.Hour), epoch.Add(-time.Minute)} {
			r.byMiddle.from = from
			e, err := r.fetch(r.root, r.on, held)
			if err != nil || r.roles(e) != "" || !strings.Contains(whys(e, "ci"), "was revoked at ") {
				t.Errorf("%s: got %q, %q and %v, want the revocation", name, r.roles(e), whys(e, "ci"), err)
			}
		}
		r.byMiddle.from = epoch.Add(time.Minute)
		if e, err := r.fetch(r.root, r.on, held); err != nil || r.roles(e) != "ci" {
			t.Errorf("%s: a newer one: got %q and %v, want ci", name, r.roles(e), err)
		}
	}
}

// An older CRL does not take the place of the newer one, for a certificate that is checked for the
// first time.
func TestThreatOlderCRL(t *testing.T) {
	t.Parallel()
	r := newRevocable(t, sources()["CRL"])
	other := issue(t, r.middle, "other", r.byMiddle.byCRL)
	r.byMiddle.revoked[other.SerialNumber.String()] = true
	if e, err := r.fetch(r.root, r.on, nil); err != nil || r.roles(e) != "ci" {
		t.Fatalf("got %q and %v, want ci", r.roles(e), err)
	}
	r.now = epoch.Add(20 * time.Hour) // a new CRL is fetched
	clear(r.byMiddle.revoked)
	r.byMiddle.from = epoch.Add(-2 * time.Hour)
	on := r.push()
	r.sign(on, other)
	e, err := r.fetch(r.root, on, nil)
	if err != nil || r.roles(e) != "" || !strings.Contains(whys(e, "ci"), "was revoked at ") {
		t.Errorf("got %q, %q and %v, want the revocation", r.roles(e), whys(e, "ci"), err)
	}
}

// An answer counts until it ends, with the servers down and after a restart from records. Then time
// alone stops it, and what was signed could not be checked.
func TestRevocationAnswersLast(t *testing.T) {
	t.Parallel()
	for name, names := range sources() {
		r := newRevocable(t, names)
		held, err := r.fetch(r.root, r.on, nil)
		if err != nil || r.roles(held) != "ci" {
			t.Fatalf("%s: got %q and %v", name, r.roles(held), err)
		}
		r.requests()
		r.now = epoch.Add(11 * time.Hour)
		if e, err := r.fetch(r.root, r.on, held); err != nil || e != held || r.requests() != 0 {
			t.Errorf("%s: before half of the time: got %v and %v, want the same without a request", name, e, err)
		}
		r.now = epoch.Add(13 * time.Hour)
		r.byRoot.end, r.byMiddle.end = epoch.Add(36*time.Hour), epoch.Add(36*time.Hour)
		e, err := r.fetch(r.root, r.on, held)
		if end, _ := e.Expiry(); err != nil || r.requests() != 2 || !end.Equal(epoch.Add(36*time.Hour)) {
			t.Errorf("%s: after half of the time: got an end at %v and %v, want new answers", name, end, err)
		}
		r.byRoot.Close()
		r.byMiddle.Close()
		r.now = epoch.Add(35 * time.Hour)
		if next, err := r.fetch(r.root, r.on, e); err != nil || next != e {
			t.Errorf("%s: with the servers down: got %v and %v, want the same", name, next, err)
		}
		r.restart()
		after := r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca})))
		recorded := r.record(r.root, after, r.on, e)
		if r.roles(recorded) != "ci" || len(recorded.Faults()) > 0 {
			t.Errorf("%s: recorded: got %q and %v, want ci", name, r.roles(recorded), recorded.Faults())
		}
		r.now = epoch.Add(36 * time.Hour)
		if r.roles(recorded) != "expired" {
			t.Errorf("%s: past the end: got %q, want it expired", name, r.roles(recorded))
		}
		r.restart()
		after = r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca})))
		late := r.record(r.root, after, r.on, e)
		if r.roles(late) != "" || len(late.Faults()) == 0 || late.Faults()[0].Reason != v1alpha1.ReasonMetadataExpired {
			t.Errorf(
				"%s: recorded, past the end: got %q and %v, want that it could not be checked",
				name,
				r.roles(late),
				late.Faults(),
			)
		}
		checked, err := after.Recheck(about(t, after, r.on), recorded)
		if err != nil || r.roles(checked) != "" || len(checked.Faults()) == 0 {
			t.Errorf(
				"%s: held, past the end: got %q and %v, want that it could not be checked",
				name,
				r.roles(checked),
				err,
			)
		}
	}
}

// With the registry down, evidence that has ended counts again once its certificates are checked.
func TestRevocationWhileTheRegistryIsDown(t *testing.T) {
	t.Parallel()
	r := newRevocable(t, sources()["OCSP"])
	held, err := r.fetch(r.root, r.on, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := r.root.Verifier.(*verifier)
	v.registry = downRegistry{}
	if _, err := r.fetch(r.root, r.on, held); err == nil {
		t.Error("before the end: got no fault, want that of the registry")
	}
	r.now = epoch.Add(25 * time.Hour)
	r.byRoot.end, r.byMiddle.end = epoch.Add(48*time.Hour), epoch.Add(48*time.Hour)
	e, err := r.fetch(r.root, r.on, held)
	if err != nil || r.roles(e) != "ci" || len(e.Faults()) != 1 {
		t.Errorf("past the end: got %q, %v and %v, want ci, and the registry's fault beside", r.roles(e), e, err)
	}
}

// The end of one role's answers leaves the statement of another role until it is fetched again, and
// then only the first could not be checked.
func TestRevocationOfOneRole(t *testing.T) {
	t.Parallel()
	r := newRevocable(t, sources()["OCSP"])
	qaCA := issue(t, nil, "qa ca", asCA)
	r.sign(r.on, issue(t, qaCA, "qa"))
	root := r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca}), caRole("qa", 1, []*certificate{qaCA})))
	held, err := r.fetch(root, r.on, nil)
	if err != nil || r.roles(held) != "ci,qa" {
		t.Fatalf("got %q and %v", r.roles(held), err)
	}
	r.byMiddle.Close()
	r.now = epoch.Add(25 * time.Hour)
	r.byRoot.end = epoch.Add(48 * time.Hour)
	e, err := r.fetch(root, r.on, held)
	if err != nil || r.roles(e) != "qa" || len(e.Faults()) != 1 {
		t.Errorf("got %q, %v and %v, want qa, and a fault", r.roles(e), e, err)
	}
	again, err := r.fetch(root, r.on, e)
	if err != nil || r.roles(again) != "qa" || len(again.Faults()) != 1 {
		t.Errorf("again: got %q, %v and %v, want qa, and a fault", r.roles(again), again, err)
	}
}

// A CRL that is too large for a record is kept in memory alone, and fetched once for all
// signatures.
func TestLargeCRL(t *testing.T) {
	t.Parallel()
	r := newRevocable(t, sources()["CRL"])
	for i := range 3000 {
		r.byMiddle.revoked[fmt.Sprintf("9%030d", i)] = true
	}
	for range 3 {
		on := r.push()
		r.sign(on, r.leaf)
		e, err := r.fetch(r.root, on, nil)
		if err != nil || r.roles(e) != "ci" {
			t.Fatalf("got %q and %v, want ci", r.roles(e), err)
		}
		if n := len(e.(*evidence).answers); n != 1 {
			t.Errorf("got %d answers in the evidence, want that of the root alone", n)
		}
		if checked, err := r.root.Recheck(about(t, r.root, on), e); err != nil || r.roles(checked) != "ci" {
			t.Errorf("held: got %q and %v, want ci", r.roles(checked), err)
		}
	}
	if n := r.requests(); n != 2 {
		t.Errorf("got %d requests, want one for each CRL", n)
	}
	r.restart()
	second := issue(t, r.middle, "ci", r.byMiddle.byCRL)
	on := r.push()
	r.sign(on, second)
	e, err := r.fetch(r.build(r.trustRoot(caRole("ci", 1, []*certificate{r.ca}))), on, nil)
	if err != nil || r.roles(e) != "ci" {
		t.Fatalf("got %q and %v", r.roles(e), err)
	}
}

// Of the signatures on a digest, a bounded number of certificates is checked.
func TestThreatManyCertificatesToCheck(t *testing.T) {
	t.Parallel()
	b, server := newBed(t), newRevoking(t)
	ca := issue(t, nil, "ca", asCA)
	server.issuer = ca
	root := b.build(b.trustRoot(caRole("ci", 1, []*certificate{ca})))
	list := &listing{}
	root.Verifier.(*verifier).registry = list
	on := b.push()
	for i := range 40 {
		middle := issue(t, ca, "middle", asCA, server.byOCSP)
		list.add(
			fmt.Sprintf("%064d", i),
			artifactType,
			signed(t, issue(t, middle, "ci", server.byOCSP), on.DigestStr()),
		)
	}
	e, err := b.fetch(root, on, nil)
	if err != nil || b.roles(e) != "" || len(e.Faults()) == 0 {
		t.Fatalf("got %q, %v and %v", b.roles(e), e, err)
	}
	if n := server.requests(); n > maxLinks {
		t.Errorf("got %d requests, want at most %d", n, maxLinks)
	}
}

// downRegistry answers nothing.
type downRegistry struct{ registries }

func (downRegistry) referrers() error {
	return trust.NewFault(v1alpha1.ReasonUnreachable, "the registry is down")
}

// A panic in the check of one certificate is a fault of its signature. It does not end the
// process.
func TestThreatPanicOfARevocationCheck(t *testing.T) {
	t.Parallel()
	r := newRevocable(t, sources()["CRL"])
	held, err := r.fetch(r.root, r.on, nil)
	if err != nil || r.roles(held) != "ci" {
		t.Fatalf("got %q and %v, want ci", r.roles(held), err)
	}
	v, _ := r.root.Verifier.(*verifier)
	c, err := unpack(held.(*evidence).packed)
	if err != nil {
		t.Fatal(err)
	}
	e, err := v.verify(t.Context(), about(t, r.root, r.on), c, func(context.Context, link) (*standing, error) {
		panic("hostile")
	})
	if err != nil || r.roles(e) != "" || len(e.Faults()) == 0 || !strings.Contains(e.Faults()[0].Error(), "broke off") {
		t.Errorf("got %q and %v, want no role and a fault", r.roles(e), err)
	}
}
