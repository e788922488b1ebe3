package trustedroot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/proto"

	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
)

// A trusted root is bounded, and what it lists can be used.
func TestParse(t *testing.T) {
	t.Parallel()
	i := sigstoreinstance.New(t)
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weakDER, err := x509.MarshalPKIXPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func(*prototrust.TrustedRoot)
		want string
	}{
		"as it is": {func(*prototrust.TrustedRoot) {}, ""},
		"many authorities": {func(r *prototrust.TrustedRoot) {
			for range maxAuthorities {
				r.CertificateAuthorities = append(r.CertificateAuthorities, r.CertificateAuthorities[0])
			}
		}, "has more than 16 authorities of one kind"},
		"many timestamp authorities": {func(r *prototrust.TrustedRoot) {
			for range maxAuthorities {
				r.TimestampAuthorities = append(r.TimestampAuthorities, r.TimestampAuthorities[0])
			}
		}, "has more than 16 authorities of one kind"},
		"many logs": {func(r *prototrust.TrustedRoot) {
			for n := range maxLogs {
				another := proto.CloneOf(r.Tlogs[0])
				another.LogId.KeyId = []byte{byte(n)}
				r.Tlogs = append(r.Tlogs, another)
			}
		}, "has more than 32 logs of one kind"},
		"a long chain": {func(r *prototrust.TrustedRoot) {
			chain := r.CertificateAuthorities[0].CertChain
			for range MaxChain {
				chain.Certificates = append(chain.Certificates, chain.Certificates[0])
			}
		}, "with a chain of more than 10 certificates"},
		"a weak key of a log": {func(r *prototrust.TrustedRoot) { r.Ctlogs[0].PublicKey.RawBytes = weakDER },
			"whose key is an ECDSA key on a curve other than"},
		"a timestamp authority without its root": {func(r *prototrust.TrustedRoot) {
			chain := r.TimestampAuthorities[0].CertChain
			chain.Certificates = chain.Certificates[:1]
		}, "without the certificate of its root"},
		"an empty certificate": {func(r *prototrust.TrustedRoot) {
			chain := r.CertificateAuthorities[0].CertChain
			chain.Certificates = append(chain.Certificates, &protocommon.X509Certificate{})
		}, "is no trusted root"},
	} {
		got, err := Parse(i.TrustedRoot(c.edit))
		if c.want == "" {
			if err != nil || got.ID() == "" || !got.ListsCT() {
				t.Errorf("%s: got %v, want a trusted root", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// Without removes logs and timestamp authorities by any of their keys, and keeps the rest.
func TestWithout(t *testing.T) {
	t.Parallel()
	i := sigstoreinstance.New(t)
	whole, err := Parse(i.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	revoked := map[string]bool{
		hex.EncodeToString(i.RekorV2.ID()): true, hex.EncodeToString(i.CT.ID()): true,
		keyID(i.TSA.Intermediate.PublicKey): true, keyID(i.Fulcio.Intermediate.PublicKey): true,
	}
	got := whole.Without(revoked)
	if len(got.RekorLogs()) != 1 || len(got.CTLogs()) != 0 || len(got.TimestampingAuthorities()) != 0 ||
		len(got.FulcioCertificateAuthorities()) != 1 {
		t.Errorf("got %d logs, %d CT logs, %d timestamp authorities and %d CAs, want 1, 0, 0 and 1",
			len(got.RekorLogs()), len(got.CTLogs()), len(got.TimestampingAuthorities()),
			len(got.FulcioCertificateAuthorities()))
	}
	if !got.ListsCT() || got.ID() != whole.ID() {
		t.Error("got no CT logs or another ID, want those of the whole")
	}
	if len(whole.RekorLogs()) != 2 || len(whole.CTLogs()) != 1 {
		t.Error("the whole trusted root was changed")
	}
}

// FuzzParse: nothing panics.
func FuzzParse(f *testing.F) {
	f.Add(sigstoreinstance.New(f).TrustedRoot())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Parse(data); err == nil && r.Without(map[string]bool{"x": true}).ID() != r.ID() {
			t.Error("another ID")
		}
	})
}
