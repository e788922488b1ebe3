package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// askedKey is the key of a request's flag in its context, which is all that a TLS handshake knows
// of the request that it is for.
type askedKey struct{}

// watchAsked returns a context for one request, and whether the peer of a connection that was
// opened for it has asked for a client certificate. A connection that was open before is not told
// of: it has carried answers.
func watchAsked(ctx context.Context) (context.Context, *atomic.Bool) {
	asked := &atomic.Bool{}
	return context.WithValue(ctx, askedKey{}, asked), asked
}

// noteAsked notes that the peer of a connection asks for a client certificate.
func noteAsked(info *tls.CertificateRequestInfo) {
	if asked, ok := info.Context().Value(askedKey{}).(*atomic.Bool); ok {
		asked.Store(true)
	}
}

// connectionFault says why a request got no answer. Where the peer ended the connection and had
// asked for a client certificate, that may be why: since TLS 1.3 a peer that accepts none may end
// the connection before its reason has come, and before that its alert may be a general one (RFC
// 5246, section 7.4.6). A connection that was refused, or took too long, never came that far.
func (c *Client) connectionFault(target *url.URL, err error, asked bool) error {
	f := trust.AsFault(fault(target, err), v1alpha1.ReasonUnreachable)
	alert, alerted := errors.AsType[*net.OpError](err)
	alerted = alerted && alert.Op == "remote error" // how crypto/tls reports an alert
	switch own := hostPort(target) == hostPort(c.base); {
	case alerted && wantsClientCertificate(alert) && own:
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the server does not accept the client without a certificate of a CA that it knows (%w); "+
				"set clientCertificateSecretRef, or correct the certificate in it", place(target), alert)
	case alerted && wantsClientCertificate(alert):
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the token service does not accept the client without a certificate (%w); it is shown none, "+
				"since clientCertificateSecretRef is for the server alone; have the token service ask for none",
			place(target), alert)
	case !asked || !alerted && !closedByPeer(err):
		return f
	case own:
		return f.Within("%w; the server asks for a client certificate, and may not accept what it was shown: "+
			"check clientCertificateSecretRef", f)
	}
	return f.Within("%w; the token service asks for a client certificate, and is shown none, "+
		"since clientCertificateSecretRef is for the server alone; have the token service ask for none", f)
}

// wantsClientCertificate reports whether an alert is one that a server ends a handshake with for
// want of a client certificate that it accepts (RFC 8446, section 6.2). crypto/tls has no more of a
// peer's alert than its text.
func wantsClientCertificate(alert *net.OpError) bool {
	return strings.Contains(alert.Err.Error(), "certificate")
}
