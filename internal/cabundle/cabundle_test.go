package cabundle

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

func newCA(t *testing.T, name string) []byte {
	t.Helper()
	ca, err := tlstest.NewCA(name)
	if err != nil {
		t.Fatal(err)
	}
	return ca.PEM
}

func block(kind string, content []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
}

func TestRead(t *testing.T) {
	first, second := newCA(t, "First CA"), newCA(t, "Second CA")
	odd := tlstest.OddCertificate(first)
	key := block("EC PRIVATE KEY", []byte("s3cret"))
	cases := map[string]struct {
		bundle  []byte
		limit   int
		want    []string // subjects
		skipped []string // words of each
		err     string
	}{
		"one": {bundle: first, want: []string{"CN=First CA"}},
		"two, with text": {
			bundle: slices.Concat([]byte("# ours\n"), first, []byte("\n# theirs\n"), second),
			want:   []string{"CN=First CA", "CN=Second CA"},
		},
		"a negative serial number": {
			bundle: slices.Concat(first, odd, second), want: []string{"CN=First CA", "CN=Second CA"},
			skipped: []string{`certificate 2 ("CN=First CA"): negative serial number`},
		},
		"rubbish": {
			bundle: slices.Concat(block("CERTIFICATE", []byte("x")), second), want: []string{"CN=Second CA"},
			skipped: []string{"certificate 1: "},
		},
		"a revocation list": {
			bundle: slices.Concat(first, block("X509 CRL", []byte("x"))), want: []string{"CN=First CA"},
			skipped: []string{`PEM block 2 ("X509 CRL"): it is not a certificate`},
		},
		"nothing": {bundle: []byte("hello"), err: "holds no PEM certificate"},
		"nothing of use": {
			bundle: odd, err: `no certificate that can be used: certificate 1 ("CN=First CA"): negative serial number`,
		},
		"a private key": {bundle: slices.Concat(first, key), err: "PEM block 2 is a private key"},
		"as many as may be": {
			bundle: slices.Concat(first, second), limit: 2, want: []string{"CN=First CA", "CN=Second CA"},
		},
		"too many": {bundle: slices.Concat(first, odd, second), limit: 2, err: "more than 2 certificates"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b, err := Read(c.bundle, c.limit, nil)
			if c.err != "" {
				if b != nil || err == nil || !strings.Contains(err.Error(), c.err) ||
					strings.Contains(err.Error(), "s3cret") {
					t.Errorf("got %v, %v, want an error with %q", b, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, cert := range b.Certificates {
				got = append(got, cert.Subject.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got certificates %q, want %q", got, c.want)
			}
			if !slices.EqualFunc(b.Skipped, c.skipped, strings.Contains) {
				t.Errorf("got skipped %q, want %q", b.Skipped, c.skipped)
			}
		})
	}
}

func TestReadAccepts(t *testing.T) {
	first, second := newCA(t, "First CA"), newCA(t, "Second CA")
	b, err := Read(slices.Concat(first, second), 0, func(c *x509.Certificate) error {
		if c.Subject.CommonName == "First CA" {
			return errors.New("not wanted")
		}
		return nil
	})
	if err != nil || len(b.Certificates) != 1 || len(b.Skipped) != 1 || !strings.Contains(b.Skipped[0], "not wanted") {
		t.Errorf("got %v, %v", b, err)
	}
}

// The texts about skipped certificates are bounded, however many there are.
func TestSkippedAreBounded(t *testing.T) {
	odd := tlstest.OddCertificate(newCA(t, strings.Repeat("x", 60)))
	b, err := Read(slices.Concat(slices.Repeat(odd, 60), newCA(t, "CA")), 64, nil)
	if err != nil {
		t.Fatal(err)
	}
	if skipped := strings.Join(b.Skipped, "; "); len(skipped) > 2000 || !strings.Contains(skipped, "55 more") {
		t.Errorf("got %d bytes: %s", len(skipped), skipped)
	}
}

// For any block, subjectOf does not panic, and it returns the same subject as crypto/x509.
func FuzzSubject(f *testing.F) {
	ca, err := tlstest.NewCA("CA")
	if err != nil {
		f.Fatal(err)
	}
	der, _ := pem.Decode(ca.PEM)
	f.Add(der.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		got := subjectOf(der)
		if cert, err := x509.ParseCertificate(der); err == nil && got != "" &&
			cert.Subject.ToRDNSequence().String() != got {
			var names pkix.RDNSequence
			if _, err := asn1.Unmarshal(cert.RawSubject, &names); err != nil || names.String() != got {
				t.Errorf("got %q, want %q", got, cert.Subject)
			}
		}
	})
}
