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

// chooseProxy returns the proxy of a request, nil for none.
type chooseProxy = func(*http.Request) (*url.URL, error)

// transport returns what sends requests. shown, where there is one, is shown to the server alone:
// a token service and a redirect to another host have a transport without it.
func (c *Client) transport(roots *x509.CertPool, shown *tls.Certificate, proxy chooseProxy) http.RoundTripper {
	plain := transport(roots, proxy)
	plain.TLSClientConfig.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		noteAsked(info)
		return &tls.Certificate{}, nil // none
	}
	if shown == nil {
		return plain
	}
	own := transport(roots, notOverTLS(proxy))
	own.TLSClientConfig.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		noteAsked(info)
		if end := shown.Leaf.NotAfter; time.Now().After(end) {
			return nil, &expiredClientCertificate{end: end}
		}
		return shown, nil
	}
	return &byHost{server: hostPort(c.base), own: own, plain: plain}
}

// transport has a bound on everything that a server could draw out.
func transport(roots *x509.CertPool, proxy chooseProxy) *http.Transport {
	dialer := &net.Dialer{
		Timeout: connectTimeout, Control: checkAddress,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence, Interval: lifeSign, Count: 2},
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
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: lifeSign},
		DisableCompression:     true, // so that a bound on what is sent is a bound on what is read
	}
}

// notOverTLS refuses a proxy that is itself spoken to over TLS: it could ask for the client
// certificate, since the transport has one configuration for it and for the server.
func notOverTLS(choose chooseProxy) chooseProxy {
	return func(req *http.Request) (*url.URL, error) {
		proxy, err := choose(req)
		if proxy != nil && proxy.Scheme == "https" {
			return nil, errors.New(
				"no client certificate is used through a proxy that is spoken to over https; name an http:// proxy, " +
					"or list the server in NO_PROXY")
		}
		return proxy, err
	}
}

// byHost sends what goes to one host by a transport of its own.
type byHost struct {
	server     string // host and port
	own, plain *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *byHost) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" && hostPort(req.URL) == t.server {
		return t.own.RoundTrip(req)
	}
	return t.plain.RoundTrip(req)
}

// CloseIdleConnections is what http.Client calls of the same name.
func (t *byHost) CloseIdleConnections() {
	t.own.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}

// An expiredClientCertificate is no longer shown to the server, which would refuse it.
type expiredClientCertificate struct{ end time.Time }

func (e *expiredClientCertificate) Error() string {
	return "the client certificate expired at " + e.end.UTC().Format(time.RFC3339)
}

// clientPair reads a certificate and its key, nil where neither is given. Its error says nothing of
// the key.
func clientPair(certificate, key string) (*tls.Certificate, error) {
	if certificate == "" && key == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	// Only the public part may be told.
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		why := "its key cannot be read"
		switch text := err.Error(); {
		case strings.Contains(text, "certificate input") || strings.Contains(text, "x509: "):
			why = "it is not a PEM certificate that can be read"
		case strings.Contains(text, "does not match"):
			why = "its key is that of another certificate"
		}
		return nil, &ClientCertificateError{Err: errors.New(why)}
	}
	return &pair, nil
}

// ClientCertificateError says that a client certificate and its key cannot be used.
type ClientCertificateError struct{ Err error }

func (e *ClientCertificateError) Error() string {
	return fmt.Sprintf("the client certificate cannot be used: %v", e.Err)
}

// Unwrap returns the error behind it.
func (e *ClientCertificateError) Unwrap() error { return e.Err }
