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

// certificateRequestKey is the context key of a flag of a request. A TLS handshake knows only the
// context of its request.
type certificateRequestKey struct{}

// withCertificateRequest returns a context for one request, and a flag. The flag is set when the
// peer of a new connection for the request asks for a client certificate. A reused connection does
// not set it: on that one, a handshake has succeeded.
func withCertificateRequest(ctx context.Context) (context.Context, *atomic.Bool) {
	requested := &atomic.Bool{}
	return context.WithValue(ctx, certificateRequestKey{}, requested), requested
}

// recordCertificateRequest records that the peer of a connection requests a client certificate.
func recordCertificateRequest(info *tls.CertificateRequestInfo) {
	if requested, ok := info.Context().Value(certificateRequestKey{}).(*atomic.Bool); ok {
		requested.Store(true)
	}
}

// connectionFault returns why a request got no response. If the peer requested a client certificate
// and then closed the connection, the certificate may be the cause. With TLS 1.3, such a peer may
// close the connection before its alert arrives; with earlier versions its alert may be a general
// one (RFC 5246, section 7.4.6). A refused connection or a timeout has another cause.
func (c *Client) connectionFault(target *url.URL, err error, certificateRequested bool) error {
	f := trust.AsFault(c.termsOf(target).fault(target, err), v1alpha1.ReasonUnreachable)
	if c.terms.settings != "" { // there is no setting for a client certificate
		if certificateRequested && (closedByPeer(err) || f.Reason == v1alpha1.ReasonTLSNotTrusted) {
			return f.Within("%w; it requests a client certificate, and Countersign has none for a registry", f)
		}
		return f
	}
	alert, alerted := errors.AsType[*net.OpError](err)
	alerted = alerted && alert.Op == "remote error" // crypto/tls reports an alert like this
	switch own := hostPort(target) == hostPort(c.base); {
	case alerted && wantsClientCertificate(alert) && own:
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the server does not accept the client without a certificate of a CA that it knows (%w); "+
				"set %s, or correct the certificate in it", shownURL(target), alert,
			c.terms.setting("clientCertificateSecretRef"))
	case alerted && wantsClientCertificate(alert):
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the token service does not accept the client without a certificate (%w); the client presents none, "+
				"because %s is for the server alone; configure the token service to request none",
			shownURL(target), alert, c.terms.setting("clientCertificateSecretRef"))
	case !certificateRequested || !alerted && !closedByPeer(err):
		return f
	case own:
		return f.Within("%w; the server requests a client certificate, and may not have accepted the presented one: "+
			"check %s", f, c.terms.setting("clientCertificateSecretRef"))
	}
	return f.Within("%w; the token service requests a client certificate, but the client presents none, "+
		"because %s is for the server alone; configure the token service to request none", f,
		c.terms.setting("clientCertificateSecretRef"))
}

// wantsClientCertificate reports whether an alert means that the server does not accept the client
// certificate or its absence (RFC 8446, section 6.2). crypto/tls exposes only the text of an alert.
func wantsClientCertificate(alert *net.OpError) bool {
	return strings.Contains(alert.Err.Error(), "certificate")
}
