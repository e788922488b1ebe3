package notation

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// An identity is met by each of its attributes, exactly, and by nothing that only looks like them.
func TestThreatNotationIdentities(t *testing.T) {
	t.Parallel()
	name := subjectNamed("qa")
	name.OrganizationalUnit = []string{"a", "b"}
	name.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "x, y+z"}}
	c := issue(t, nil, "qa")
	c.Subject = parsed(t, name)
	for text, want := range map[string]bool{
		"C=US,ST=WA,O=acme,CN=qa": true, "CN=qa": true, " cn = qa , O=acme ": true, "S=WA": true, "2.5.4.3=qa": true,
		`1.2.3=x\, y\+z`: true, `1.2.3=x\2c y\2Bz`: true,
		"CN=QA": false, "CN=q": false, "CN=qa2": false, "CN=qa,O=acme2": false, "CN=*": false, "O=qa": false,
		"OU=a": false, "OU=b": false, "L=x": false, "CN=qa,L=x": false, "1.2.4=x": false,
	} {
		s, err := parseSubject(text)
		if err != nil {
			t.Errorf("%q: got %v, want it read", text, err)
			continue
		}
		if got := s.within(c.Subject); got != want {
			t.Errorf("%q: got %t, want %t", text, got, want)
		}
	}
	for _, text := range []string{
		"", "qa", "CN", "CN=", "CN= ", "=qa", "XX=qa", "CN=#0c0171", "CN=a+O=b", "CN=a;O=b", `CN="a"`, `CN=a\`, `CN=a\q1`,
		"CN=a,CN=b", "S=a,ST=b", "CN=qa,", ",CN=qa", "1=x", "01.2=x", "1.-2=x", "CN=a\x00",
	} {
		if s, err := parseSubject(text); err == nil {
			t.Errorf("%q: got %v, want it refused", text, s)
		}
	}
}

// parsed returns a name as it is read from a certificate.
func parsed(t *testing.T, name pkix.Name) (read pkix.Name) {
	t.Helper()
	der, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	var all pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &all); err != nil {
		t.Fatal(err)
	}
	read.FillFromRDNSequence(&all)
	return read
}

// What is read as an identity is met by a certificate with just these attributes.
func FuzzParseSubject(f *testing.F) {
	for _, text := range []string{"C=US,ST=WA,O=acme,CN=qa", `CN=a\,b`, `1.2.3=\c3\a4`, "CN=a+b", `CN=\ x\ `} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSubject(text)
		if err != nil {
			return
		}
		var name pkix.Name
		for _, a := range s {
			var id asn1.ObjectIdentifier
			for part := range strings.SplitSeq(a.kind, ".") {
				n := 0
				for _, digit := range part {
					n = n*10 + int(digit-'0')
				}
				id = append(id, n)
			}
			name.Names = append(name.Names, pkix.AttributeTypeAndValue{Type: id, Value: a.value})
		}
		if !s.within(name) {
			t.Errorf("%q: got attributes %v, which do not meet themselves", text, s)
		}
		name.Names = name.Names[1:]
		if s.within(name) {
			t.Errorf("%q: got it met without its first attribute", text)
		}
	})
}

// What is wrong with a TrustRoot names its field. An empty trust store is refused.
func TestUnusableNotationTrustRoot(t *testing.T) {
	t.Parallel()
	ca := issue(t, nil, "ca", asCA)
	leaf := issue(t, ca, "ci")
	from := v1alpha1.KeySource{Kind: "ConfigMap", Name: "cas", Key: "ca.crt"}
	for want, edit := range map[string]func(s *v1alpha1.NotationSpec){
		"spec.notation.roles[0].certificates[0]: holds no PEM certificate": func(s *v1alpha1.NotationSpec) {
			s.Roles[0].Certificates[0] = "-----BEGIN "
		},
		"spec.notation.roles[0].certificates[0]: holds no certificate that can be used: certificate 1 " +
			`("CN=ci,O=acme,ST=WA,C=US"): it is neither a CA nor self-signed`: func(s *v1alpha1.NotationSpec) {
			s.Roles[0].Certificates[0] = v1alpha1.PEM(leaf.pem())
		},
		"spec.notation.roles[0].certificatesFrom[0] (ConfigMap cas, entry ca.crt)": func(s *v1alpha1.NotationSpec) {
			s.Roles[0].CertificatesFrom = []v1alpha1.KeySource{from}
		},
		"spec.notation.roles[0].identities: at least one is needed": func(s *v1alpha1.NotationSpec) {
			s.Roles[0].Identities = nil
		},
		`spec.notation.roles[0].identities[0]: "qa" is not an attribute such as CN=qa`: func(s *v1alpha1.NotationSpec) {
			s.Roles[0].Identities[0] = "qa"
		},
		"spec.notation.timestampAuthorities: holds no certificate that can be used": func(s *v1alpha1.NotationSpec) {
			s.TimestampAuthorities = v1alpha1.TimestampBundle(leaf.pem())
		},
		"spec.notation.timestampAuthoritiesFrom (ConfigMap cas, entry ca.crt): holds": func(s *v1alpha1.NotationSpec) {
			s.TimestampAuthoritiesFrom = &from
		},
	} {
		b := &bed{}
		b.restart()
		tr := &v1alpha1.TrustRoot{Spec: v1alpha1.TrustRootSpec{Notation: &v1alpha1.NotationSpec{
			Roles: []v1alpha1.NotationRole{caRole("ci", 1, []*certificate{ca})},
		}}}
		edit(tr.Spec.Notation)
		_, err := b.format.Build(tr, trust.Material{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Certificates come from ConfigMaps and Secrets too, several in one entry. What does not count is
// noted.
func TestNotationMaterial(t *testing.T) {
	t.Parallel()
	first, second := issue(t, nil, "first", asCA), issue(t, nil, "second", asCA)
	leaf, tsa := issue(t, first, "ci"), issue(t, nil, "tsa", asCA)
	role := caRole("ci", 1, nil)
	cas := v1alpha1.KeySource{Kind: "ConfigMap", Name: "cas", Key: "ca.crt"}
	times := v1alpha1.KeySource{Kind: "Secret", Name: "tsa", Key: "tsa.crt"}
	role.CertificatesFrom = []v1alpha1.KeySource{cas}
	tr := &v1alpha1.TrustRoot{Spec: v1alpha1.TrustRootSpec{Notation: &v1alpha1.NotationSpec{
		Roles: []v1alpha1.NotationRole{role}, TimestampAuthoritiesFrom: &times,
	}}}
	f := &Format{}
	if !f.Of(&tr.Spec) || f.Of(&v1alpha1.TrustRootSpec{}) || f.Name() != "Notation" {
		t.Error("got the format of another spec")
	}
	material := trust.Material{cas: first.pem() + leaf.pem() + second.pem(), times: tsa.pem()}
	refers := map[v1alpha1.KeySource]bool{}
	for _, r := range f.Refers(&tr.Spec) {
		refers[r.KeySource] = !r.Optional
	}
	if !maps.Equal(refers, map[v1alpha1.KeySource]bool{cas: true, times: true}) {
		t.Errorf("got the references %v, want both required", refers)
	}
	root, err := f.Build(tr, material)
	if err != nil {
		t.Fatal(err)
	}
	described := root.(trust.Described)
	if notes := described.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "skipped certificate 2") {
		t.Errorf("got the notes %q, want the certificate that is no CA", notes)
	}
	want := []string{keyID(first.Certificate), keyID(second.Certificate)}
	slices.Sort(want)
	if got := described.Fingerprints(); !slices.Equal(got, want) {
		t.Errorf("got the fingerprints %q, want %q", got, want)
	}
}
