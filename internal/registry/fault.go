package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxNames bounds the names of a certificate that a message shows, in bytes.
const maxNames = 300

// fault says in an administrator's words why a request got no answer.
func fault(target *url.URL, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the rest of it repeats method and URL
	}
	where := place(target)
	if f := refusalFault(where, err); f != nil {
		return f
	}
	if f := tlsFault(where, target.Hostname(), err); f != nil {
		return f
	}
	return networkFault(where, target.Hostname(), err)
}

// refusalFault is for what this package itself would not do.
func refusalFault(where string, err error) *trust.Fault {
	if refused, ok := errors.AsType[*refusedAddress](err); ok {
		return trust.NewFault(v1alpha1.ReasonAddressRefused, "%s: %w; use the server's own address", where, refused)
	}
	if redirect, ok := errors.AsType[*refusedRedirect](err); ok {
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", where, redirect)
	}
	return nil
}

// tlsFault is for a certificate that is not to be trusted, and for a peer that speaks no TLS.
func tlsFault(where, host string, err error) *trust.Fault {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the certificate is signed by an unknown authority; put the certificate of the CA that issued it "+
				"into caBundle", where)
	}
	if expired, ok := errors.AsType[*expiredClientCertificate](err); ok {
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the server asks for a client certificate, and %w; renew it in the Secret of clientCertificateSecretRef",
			where,
			expired)
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		if len(wrong.Certificate.DNSNames) == 0 && len(wrong.Certificate.IPAddresses) == 0 {
			return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
				"%s: the certificate has no subject alternative name, only the common name %q, which is not looked "+
					"at; issue it anew with %q as its subject alternative name",
				where, text.Cut(wrong.Certificate.Subject.CommonName, maxNames), host)
		}
		names := strings.Join(wrong.Certificate.DNSNames, ", ")
		for _, ip := range wrong.Certificate.IPAddresses {
			names = strings.TrimPrefix(names+", "+ip.String(), ", ")
		}
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the certificate is for another name: it is for %q, not for %q; correct the server's URL or its "+
				"certificate", where, text.Cut(names, maxNames), host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
				"%s: the certificate has expired or is not valid yet (valid from %s to %s); renew it, or check the "+
					"clock", where,
				invalid.Cert.NotBefore.UTC().Format("2006-01-02"), invalid.Cert.NotAfter.UTC().Format("2006-01-02"))
		}
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted, "%s: the certificate cannot be accepted: %w", where,
			invalid)
	}
	if verification, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the certificate cannot be verified: %w; check caBundle", where, verification)
	}
	// how crypto/tls reports an alert
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the server broke off the TLS handshake: %w; look at its log", where, alert)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: what answers does not speak TLS; check the port and the scheme of the server's URL", where)
	}
	return nil
}

// networkFault is for everything else: the answer did not come.
func networkFault(where, host string, err error) *trust.Fault {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsTimeout {
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: the name %q cannot be resolved; check the server's URL and the cluster's DNS", where, host)
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return trust.NewFault(v1alpha1.ReasonTimeout, "%s: given up before an answer came: %w", where, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return trust.NewFault(v1alpha1.ReasonTimeout,
			"%s: no full answer in time: %w; is the server overloaded, or a firewall in between?", where,
			context.DeadlineExceeded)
	case errors.Is(err, syscall.ECONNREFUSED):
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: the connection was refused; is the server running, and the port right?", where)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: there is no route to the server; check network policies and firewalls", where)
	case closedByPeer(err):
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: the server closed the connection before its answer was complete", where)
	}
	return trust.NewFault(v1alpha1.ReasonUnreachable, "%s: %w", where, err)
}

// closedByPeer reports whether the other side ended the connection.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || brokenOff(err)
}

// streamError is what net/http fills in from its own error for a stream of HTTP/2 that was broken
// off: the names of the fields are what it goes by.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "the stream was broken off" }

// brokenOff reports whether the other side ended an answer over HTTP/2 before it was complete, by
// its stream alone, or a connection that net/http has no more to say of than a text: before the
// request was sent, or the whole of it over HTTP/2.
func brokenOff(err error) bool {
	_, stream := errors.AsType[streamError](err)
	return stream || slices.ContainsFunc([]string{
		"http: server closed idle connection",
		"http2: client conn could not be established",
		"http2: server sent GOAWAY and closed the connection",
	}, func(text string) bool { return strings.Contains(err.Error(), text) })
}
