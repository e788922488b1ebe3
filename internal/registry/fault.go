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

// maxNames bounds the names of a certificate in a message, in bytes.
const maxNames = 300

// fault returns a *trust.Fault that tells an administrator why a request failed.
func (t terms) fault(target *url.URL, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the outer error repeats method and URL
	}
	where := shownURL(target)
	if f := t.refusalFault(where, err); f != nil {
		return f
	}
	if f := t.tlsFault(where, target.Hostname(), err); f != nil {
		return f
	}
	return t.networkFault(where, target.Hostname(), err)
}

// refusalFault returns the fault of an address or redirect that this package refuses, or nil.
func (t terms) refusalFault(where string, err error) *trust.Fault {
	if refused, ok := errors.AsType[*refusedAddress](err); ok {
		return trust.NewFault(v1alpha1.ReasonAddressRefused, "%s: %w; use the %s's own address", where, refused,
			t.short)
	}
	if redirect, ok := errors.AsType[*refusedRedirect](err); ok {
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", where, redirect)
	}
	return nil
}

// tlsFault returns the fault of a failed TLS handshake, or nil.
func (t terms) tlsFault(where, host string, err error) *trust.Fault {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the certificate is signed by an unknown authority; put the certificate of the CA that issued it "+
				"into %s", where, t.setting("caBundle"))
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
				"%s: the certificate has no subject alternative name, only the common name %q, which does "+
					"not count; issue it again with %q as its subject alternative name",
				where, text.Cut(wrong.Certificate.Subject.CommonName, maxNames), host)
		}
		names := strings.Join(wrong.Certificate.DNSNames, ", ")
		for _, ip := range wrong.Certificate.IPAddresses {
			names = strings.TrimPrefix(names+", "+ip.String(), ", ")
		}
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the certificate is for another name: it is for %q, not for %q; correct %s or the "+
				"certificate", where, text.Cut(names, maxNames), host, t.address)
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
			"%s: the certificate cannot be verified: %w; check %s", where, verification, t.setting("caBundle"))
	}
	// crypto/tls reports an alert like this
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return trust.NewFault(v1alpha1.ReasonTLSNotTrusted,
			"%s: the %s broke off the TLS handshake: %w; look at its log", where, t.short, alert)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the %s does not speak TLS; check %s", where, t.short, t.scheme)
	}
	return nil
}

// networkFault returns the fault of any other failure: no complete response arrived.
func (t terms) networkFault(where, host string, err error) *trust.Fault {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsTimeout {
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: the name %q cannot be resolved; check %s and the cluster's DNS", where, host, t.address)
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return trust.NewFault(v1alpha1.ReasonTimeout, "%s: cancelled before the response arrived: %w", where,
			context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return trust.NewFault(v1alpha1.ReasonTimeout,
			"%s: no full answer in time: %w; is the %s overloaded, or a firewall in between?", where,
			context.DeadlineExceeded, t.short)
	case errors.Is(err, syscall.ECONNREFUSED):
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: the connection was refused; is the %s running, and the port right?", where, t.short)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: there is no route to the %s; check network policies and firewalls", where, t.short)
	case closedByPeer(err):
		return trust.NewFault(v1alpha1.ReasonUnreachable,
			"%s: the %s closed the connection before its answer was complete", where, t.short)
	}
	return trust.NewFault(v1alpha1.ReasonUnreachable, "%s: %w", where, err)
}

// closedByPeer reports whether the peer closed the connection or the stream.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || http2Closed(err)
}

// streamError matches the error of net/http for an HTTP/2 stream that the peer reset. net/http
// fills it through errors.As, by the names of the fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "the stream was broken off" }

// http2Closed reports whether the peer reset an HTTP/2 stream or closed the connection before the
// response was complete. For a closed connection net/http has no error type, only a text.
func http2Closed(err error) bool {
	_, stream := errors.AsType[streamError](err)
	return stream || slices.ContainsFunc([]string{
		"http: server closed idle connection",
		"http2: client conn could not be established",
		"http2: server sent GOAWAY and closed the connection",
	}, func(text string) bool { return strings.Contains(err.Error(), text) })
}
