package notation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	nx509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/tspclient-go"
)

// maxTokenCertificates bounds the certificates in a timestamp.
const maxTokenCertificates = 16

// stamped is the verified timestamp of a signature.
type stamped struct {
	*tspclient.Timestamp

	chain []*x509.Certificate // of the authority, up to a listed one
}

// readTimestamp verifies the timestamp of a signature (RFC 3161, section 2.4.2). The error is the
// rest of a sentence that begins with the signature.
func readTimestamp(token, signature []byte, authorities *x509.CertPool) (stamped, error) {
	fail := func(err error) (stamped, error) {
		return stamped{}, fmt.Errorf("has a timestamp that does not verify with spec.notation.timestampAuthorities: %s",
			shown(err.Error()))
	}
	signed, err := tspclient.ParseSignedToken(token)
	if err != nil {
		return fail(err)
	}
	if n := len(signed.Certificates); n > maxTokenCertificates || len(signed.SignerInfos) != 1 {
		return fail(fmt.Errorf("it has %d certificates and %d signatures", n, len(signed.SignerInfos)))
	}
	for _, cert := range signed.Certificates {
		if err := checkSize(cert); err != nil {
			return fail(err)
		}
	}
	info, err := signed.Info()
	if err != nil {
		return fail(err)
	}
	at, err := info.Validate(signature)
	if err != nil {
		return fail(err)
	}
	chain, err := signed.Verify(context.Background(), x509.VerifyOptions{CurrentTime: at.Value, Roots: authorities})
	if err != nil {
		return fail(err)
	}
	if len(chain) > maxChain {
		return fail(errors.New("its chain of certificates is too long"))
	}
	if err := checkAuthority(chain); err != nil {
		return fail(err)
	}
	return stamped{Timestamp: at, chain: chain}, nil
}

// checkAuthority checks the certificates of a timestamp authority. Those of a chain that ends at a
// listed intermediate certificate are checked by the caller's pool alone.
func checkAuthority(chain []*x509.Certificate) error {
	last := chain[len(chain)-1]
	if last.CheckSignatureFrom(last) != nil {
		return nil //nolint:nilerr // not self-signed: a listed intermediate certificate
	}
	return nx509.ValidateTimestampingCertChain(chain)
}

// validity is the time for which the certificates of a signature are judged, and until when the
// judgement counts. Zero end: for ever.
type validity struct {
	at, end time.Time
	ends    string              // the certificate that ends it
	stamp   []*x509.Certificate // the chain of the timestamp's authority
}

// validityOf judges the certificates of a claim at the time of its timestamp, or without one now.
// The error is the rest of a sentence that begins with the signature.
func (r *roles) validityOf(c *claim, now time.Time) (validity, error) {
	if r.authorities == nil || len(c.timestamp) == 0 {
		v := validity{at: now}
		for _, cert := range c.chain {
			if now.Before(cert.NotBefore) {
				return v, fmt.Errorf("is by the certificate %q, which is not valid before %s", shownName(cert.Subject),
					shownTime(cert.NotBefore))
			}
			if !now.Before(cert.NotAfter) {
				return v, fmt.Errorf("is by the certificate %q, which expired at %s%s", shownName(cert.Subject),
					shownTime(cert.NotAfter), r.untimed(c))
			}
			if v.end.IsZero() || cert.NotAfter.Before(v.end) {
				v.end, v.ends = cert.NotAfter, "the certificate "+shownName(cert.Subject)
			}
		}
		return v, nil
	}
	stamp, err := readTimestamp(c.timestamp, c.signature, r.authorities)
	if err != nil {
		return validity{}, err
	}
	for _, cert := range c.chain {
		if !stamp.BoundedAfter(cert.NotBefore) || !stamp.BoundedBefore(cert.NotAfter) {
			return validity{}, fmt.Errorf("was timestamped at %s, outside the validity of the certificate %q",
				shownTime(stamp.Value), shownName(cert.Subject))
		}
	}
	return validity{at: stamp.Value, stamp: stamp.chain}, nil
}

// untimed says why the time of a signature is not known.
func (r *roles) untimed(c *claim) string {
	switch {
	case len(c.timestamp) == 0:
		return ", and the signature has no timestamp"
	case r.authorities == nil:
		return "; its timestamp does not count without spec.notation.timestampAuthorities"
	}
	return ""
}

func shownTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
