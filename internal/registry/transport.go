package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// chooseProxy returns the proxy of a request, or nil.
type chooseProxy = func(*http.Request) (*url.URL, error)

// transport returns the RoundTripper of the client. It presents a certificate only to the server.
// Requests to other hosts, such as a token service, use a transport without it.
func (c *Client) transport(roots *x509.CertPool, certificate *tls.Certificate, proxy chooseProxy) http.RoundTripper {
	plain := transport(roots, proxy)
	plain.TLSClientConfig.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		recordCertificateRequest(info)
		return &tls.Certificate{}, nil // none
	}
	if certificate == nil {
		return plain
	}
	withCertificate := transport(roots, notOverTLS(proxy))
	withCertificate.TLSClientConfig.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate,
		error) {
		recordCertificateRequest(info)
		if end := certificate.Leaf.NotAfter; time.Now().After(end) {
			return nil, &expiredClientCertificate{end: end}
		}
		return certificate, nil
	}
	return &byHost{server: hostPort(c.base), withCertificate: withCertificate, plain: plain}
}

// transport returns a transport with bounds on time, header size and connections.
func transport(roots *x509.CertPool, proxy chooseProxy) *http.Transport {
	dialer := &net.Dialer{
		Timeout: connectTimeout, Control: checkAddress,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: pingAfter, Interval: pingTimeout, Count: 2},
	}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    connectTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        maxConnections,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        90 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		DisableCompression:     true, // so that a limit on read bytes is also a limit on sent bytes
	}
}

// notOverTLS refuses an https:// proxy. Such a proxy could request the client certificate, because
// the transport has one TLS configuration for proxy and server.
func notOverTLS(choose chooseProxy) chooseProxy {
	return func(req *http.Request) (*url.URL, error) {
		proxy, err := choose(req)
		if proxy != nil && proxy.Scheme == "https" {
			return nil, errors.New(
				"a client certificate is not used through an https:// proxy; name an http:// proxy, " +
					"or list the server in NO_PROXY")
		}
		return proxy, err
	}
}

// byHost sends the requests to one host through a transport with the client certificate.
type byHost struct {
	server                 string // host and port
	withCertificate, plain *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *byHost) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" && hostPort(req.URL) == t.server {
		return t.withCertificate.RoundTrip(req)
	}
	return t.plain.RoundTrip(req)
}

// CloseIdleConnections implements the method that http.Client.CloseIdleConnections calls.
func (t *byHost) CloseIdleConnections() {
	t.withCertificate.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}

// expiredClientCertificate is the error of a handshake that needs a client certificate that has
// expired. The server would refuse it.
type expiredClientCertificate struct{ end time.Time }

func (e *expiredClientCertificate) Error() string {
	return "the client certificate expired at " + e.end.UTC().Format(time.RFC3339)
}

// parseClientCertificate reads a certificate and its key. It returns nil if both are empty. Its
// error contains nothing of the key.
func parseClientCertificate(certificate, key string) (*tls.Certificate, error) {
	if certificate == "" && key == "" {
		return nil, nil //nolint:nilnil // none is configured
	}
	// The error must not contain anything of the private key.
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		why := "its key cannot be read"
		switch text := err.Error(); {
		case strings.Contains(text, "certificate input") || strings.Contains(text, "x509: "):
			why = "it is not a PEM certificate that can be read"
		case strings.Contains(text, "does not match"):
			why = "its key belongs to another certificate"
		}
		return nil, &ClientCertificateError{Err: errors.New(why)}
	}
	return &pair, nil
}

// ClientCertificateError is the error of a client certificate and key that cannot be used.
type ClientCertificateError struct{ Err error }

func (e *ClientCertificateError) Error() string {
	return fmt.Sprintf("the client certificate cannot be used: %v", e.Err)
}

// Unwrap returns the cause.
func (e *ClientCertificateError) Unwrap() error { return e.Err }
