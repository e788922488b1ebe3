package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// signer is a certificate with its key.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// signs makes a certificate that is valid from 2026 for so many days. Without a signer it is
// self-signed.
func (s *signer) signs(t *testing.T, ca bool, days int, usage ...x509.ExtKeyUsage) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano() + int64(days)), Subject: pkix.Name{CommonName: "client"},
		NotBefore: from, NotAfter: from.AddDate(0, 0, days),
		IsCA: ca, BasicConstraintsValid: true, ExtKeyUsage: usage, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ca {
		template.KeyUsage, template.Subject.CommonName = x509.KeyUsageCertSign, "CA"
	}
	if s == nil {
		s = &signer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

func TestThreatClientCertificates(t *testing.T) {
	const client = x509.ExtKeyUsageClientAuth
	var none *signer
	ca, other := none.signs(t, true, 300), none.signs(t, true, 300)
	between := ca.signs(t, true, 50)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pemOf("CERTIFICATE", ca.cert.Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		shown []*signer
		good  bool
	}{
		"nothing":                     {nil, false},
		"of the CA":                   {[]*signer{ca.signs(t, false, 100, client)}, true},
		"through another":             {[]*signer{between.signs(t, false, 100, client), between}, true},
		"through what is not shown":   {[]*signer{between.signs(t, false, 100, client)}, false},
		"of another CA":               {[]*signer{other.signs(t, false, 100, client)}, false},
		"of another CA that is shown": {[]*signer{other.signs(t, false, 100, client), other}, false},
		"behind a good one's back": {
			[]*signer{other.signs(t, false, 100, client), ca.signs(t, false, 100, client)}, false,
		},
		"of a server": {[]*signer{ca.signs(t, false, 100, x509.ExtKeyUsageServerAuth)}, false},
		"expired":     {[]*signer{ca.signs(t, false, 20, client)}, false},
		"of one who may not": {
			[]*signer{ca.signs(t, false, 100, client).signs(t, false, 100, client), ca.signs(t, false, 100, client)},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))
			clients := NewClientCA(file, clock)
			var shown []*x509.Certificate
			for _, s := range c.shown {
				shown = append(shown, s.cert)
			}
			verified, err := clients.Verify(shown, nil)
			if c.good != (err == nil) {
				t.Fatalf("%v", err)
			}
			if !c.good {
				return
			}
			if again, err := clients.Verify(shown, verified); err != nil || again != verified {
				t.Errorf("the second verification: %v, want no error", err)
			}
			stranger := []*x509.Certificate{other.signs(t, false, 100, client).cert}
			if _, err := clients.Verify(stranger, verified); err == nil {
				t.Error("another certificate counts as verified, want an error")
			}
			// The certificate of the chain that expires first ends the verification.
			end := 100
			if len(shown) > 1 {
				end = 50
			}
			clock.SetTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, end).Add(time.Second))
			if _, err := clients.Verify(shown, verified); err == nil {
				t.Error("an expired certificate counts as verified, want an error")
			}
			clock.SetTime(time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC))
			if _, err := clients.Verify(shown, verified); err == nil {
				t.Error("a certificate that is not yet valid counts as verified, want an error")
			}
		})
	}
}

// From the second read of an unusable file on, no client is verified.
func TestThreatClientCAFailsClosed(t *testing.T) {
	var none *signer
	ca := none.signs(t, true, 300)
	shown := []*x509.Certificate{ca.signs(t, false, 100, x509.ExtKeyUsageClientAuth).cert}
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))
	good := pemOf("CERTIFICATE", ca.cert.Raw)
	for name, bad := range map[string][]byte{
		"empty": {}, "no PEM": []byte("ca"), "a key": pemOf("EC PRIVATE KEY", []byte("x")),
		"no certificate":  pemOf("CERTIFICATE", []byte("x")),
		"a key beside it": append(pemOf("EC PRIVATE KEY", []byte("x")), good...),
		"too long":        make([]byte, maxClientCA+1), "missing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "ca.crt")
			write := func(text []byte) {
				err := os.WriteFile(file, text, 0o600)
				if text == nil {
					err = os.Remove(file)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			write(good)
			clients := NewClientCA(file, clock)
			want := func(ok bool) {
				t.Helper()
				clients.read()
				_, err := clients.Verify(shown, nil)
				ready := clients.Ready()
				if ok && (err != nil || ready != nil) {
					t.Errorf("%v, %v", err, ready)
				}
				if !ok &&
					(!errors.Is(err, ErrNoClientCA) || ready == nil ||
						!strings.Contains(ready.Error(), "--webhook-client-ca")) {
					t.Errorf("%v, %v", err, ready)
				}
			}
			want(true)
			write(bad)
			want(true)
			want(false)
			want(false)
			write(good)
			want(true)
			write(bad)
			want(true) // one doubt at a time
			write(good)
			want(true)
			write(bad)
			if _, err := NewClientCA(file, clock).Verify(shown, nil); !errors.Is(err, ErrNoClientCA) {
				t.Errorf("at the start: %v", err)
			}
		})
	}
}

// An unreadable CA does not affect the others.
func TestClientCASkipsWhatCannotBeRead(t *testing.T) {
	var none *signer
	ca := none.signs(t, true, 300)
	client := ca.signs(t, false, 100, x509.ExtKeyUsageClientAuth).cert
	file := filepath.Join(t.TempDir(), "ca.crt")
	bundle := append(pemOf("CERTIFICATE", []byte("x")), pemOf("CERTIFICATE", ca.cert.Raw)...)
	if err := os.WriteFile(file, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	clients := NewClientCA(file, clocktesting.NewFakePassiveClock(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)))
	if err := clients.Ready(); err != nil {
		t.Fatal(err)
	}
	if _, err := clients.Verify([]*x509.Certificate{client}, nil); err != nil {
		t.Error(err)
	}
}
