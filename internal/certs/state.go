package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The keys of the Secret besides tls.crt and tls.key, which hold the newest certificate, and the
// annotation with the time since when both webhook configurations have its CA.
const (
	caKey             = "ca.crt"       // the bundle: the newest CA first, then older ones that are still trusted
	previousCertKey   = "previous.crt" // the pair that is served until the newest may be
	previousKeyKey    = "previous.key"
	trustedAnnotation = "countersign.dev/trusted-since"
)

// state is the content of the Secret. It is immutable.
type state struct {
	// newest is never nil. Its CA is in the bundle.
	newest *pair
	// previous is nil outside of an overlap.
	previous *pair
	// trusted is when both webhook configurations first held the CA of newest; zero: not yet.
	trusted time.Time
	bundle  bundle
}

// inForce reports whether API servers know the newest certificate: they had time to load its CA.
func (s *state) inForce(now time.Time) bool {
	return !s.trusted.IsZero() && !now.Before(s.trusted.Add(Uptake))
}

func (s *state) overlaps() bool { return s.previous != nil || len(s.bundle) > 1 }

// replaced returns the state that begins the overlap of the served pair with a fresh one.
func (s *state) replaced(fresh, served *pair) *state {
	next := &state{newest: fresh, bundle: bundle{fresh.ca}.with(s.bundle...)}
	if served != nil && !served.tls.Leaf.Equal(fresh.tls.Leaf) {
		next.previous, next.bundle = served, next.bundle.with(served.ca)
	}
	return next
}

// wait returns the time until the next step. A change of the webhook configurations may make one
// due sooner.
func (s *state) wait(now time.Time) time.Duration {
	next := s.newest.renewal().Sub(now)
	if s.overlaps() && !s.trusted.IsZero() {
		next = min(next, s.trusted.Add(Uptake+Retention).Sub(now))
	}
	return min(max(next, time.Second), attention)
}

// parse reads a Secret, also one of an earlier release. It does not check whether the certificates
// are still valid.
func parse(secret *corev1.Secret) (*state, error) {
	s := &state{bundle: certificates(secret.Data[caKey])}
	var err error
	if s.newest, err = readPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey],
		s.bundle); err != nil {
		return nil, fmt.Errorf("%s: %w", corev1.TLSCertKey, err)
	}
	// An unreadable previous pair counts as none: only a replica that starts needs it.
	s.previous, _ = readPair(secret.Data[previousCertKey], secret.Data[previousKeyKey], s.bundle)
	s.trusted, _ = time.Parse(time.RFC3339, secret.Annotations[trustedAnnotation]) // a malformed time counts as none
	return s, nil
}

// put writes the state into a Secret.
func (s *state) put(secret *corev1.Secret) {
	secret.Data = map[string][]byte{
		corev1.TLSCertKey:       s.newest.certPEM,
		corev1.TLSPrivateKeyKey: s.newest.keyPEM,
		caKey:                   s.bundlePEM(),
	}
	if s.previous != nil {
		secret.Data[previousCertKey], secret.Data[previousKeyKey] = s.previous.certPEM, s.previous.keyPEM
	}
	delete(secret.Annotations, trustedAnnotation)
	if s.trusted.IsZero() {
		return
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[trustedAnnotation] = s.trusted.UTC().Format(time.RFC3339)
}

func (s *state) bundlePEM() []byte {
	var text []byte
	for _, ca := range s.bundle {
		text = append(text, pemOf("CERTIFICATE", ca.Raw)...)
	}
	return text
}

// bundle is a set of CAs in order.
type bundle []*x509.Certificate

func (b bundle) has(ca *x509.Certificate) bool {
	for _, c := range b {
		if c.Equal(ca) {
			return true
		}
	}
	return false
}

// with returns the bundle with the given CAs added, each once.
func (b bundle) with(cas ...*x509.Certificate) bundle {
	added := append(bundle{}, b...)
	for _, ca := range cas {
		if !added.has(ca) {
			added = append(added, ca)
		}
	}
	return added
}

// certificates returns the certificates in a PEM text, and ignores everything else.
func certificates(text []byte) (found bundle) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return found
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = found.with(c)
		}
	}
}

// allHold reports whether each of the bundles holds a CA.
func allHold(bundles [][]byte, ca *x509.Certificate) bool {
	for _, text := range bundles {
		if !certificates(text).has(ca) {
			return false
		}
	}
	return len(bundles) > 0
}

// pair is a certificate with its key, and the CA that signed it.
type pair struct {
	tls             tls.Certificate
	certPEM, keyPEM []byte
	ca              *x509.Certificate
}

// readPair returns an error where no CA of the bundle has signed the certificate.
func readPair(certPEM, keyPEM []byte, cas bundle) (*pair, error) {
	p := &pair{certPEM: certPEM, keyPEM: keyPEM}
	var err error
	if p.tls, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, err
	}
	for _, ca := range cas {
		if bytes.Equal(p.tls.Leaf.RawIssuer, ca.RawSubject) && p.tls.Leaf.CheckSignatureFrom(ca) == nil {
			p.ca = ca
			return p, nil
		}
	}
	return nil, errors.New("no CA certificate in " + caKey + " has signed it")
}

// good reports whether an API server that trusts the CA accepts the certificate.
func (p *pair) good(host string, now time.Time) bool {
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	_, err := p.tls.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now})
	return err == nil
}

// current reports whether now is within the validity of the certificate.
func (p *pair) current(now time.Time) bool {
	return !now.Before(p.tls.Leaf.NotBefore) && !now.After(p.tls.Leaf.NotAfter)
}

// renewal returns when the certificate is replaced: renewAfter after it was made, or at two thirds
// of its life if that is sooner.
func (p *pair) renewal() time.Time {
	from, to := p.tls.Leaf.NotBefore, p.tls.Leaf.NotAfter
	return from.Add(min(renewAfter, to.Sub(from)/3*2))
}

// due reports whether the pair must be replaced now.
func (p *pair) due(host string, now time.Time) bool {
	return !now.Before(p.renewal()) || !p.good(host, now)
}
