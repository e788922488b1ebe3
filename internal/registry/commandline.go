package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

const (
	// maxOfCommand bounds the answers of a registry to one command, in bytes.
	maxOfCommand = 32 << 20
	// minOfAnswer is what an answer counts at least, in bytes. It bounds the number of answers.
	minOfAnswer = 8 << 10
)

// limited is a transport for one command of a user.
type limited struct {
	base http.RoundTripper
	left atomic.Int64
}

// LimitTransport returns a transport for one command of a user, who names any registry. It bounds
// the answers together. It sends plain http to this machine alone: a library may fall back to http
// for hosts with a private address or name, where anybody on the way could read the password and
// choose the digest.
func LimitTransport(base http.RoundTripper) http.RoundTripper {
	l := &limited{base: base}
	l.left.Store(maxOfCommand)
	return l
}

// RoundTrip implements http.RoundTripper.
func (l *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	if host := req.URL.Hostname(); req.URL.Scheme != "https" && !loopback(host) {
		return nil, fmt.Errorf("%q does not answer over https, and http is used for this machine alone", host)
	}
	if l.left.Add(-minOfAnswer) <= 0 {
		return nil, l.exceeded()
	}
	resp, err := l.base.RoundTrip(req)
	if err == nil {
		resp.Body = limitedBody{resp.Body, l}
	}
	return resp, err
}

func (*limited) exceeded() error {
	return fmt.Errorf("the registry sends more than %d MiB or %d answers", maxOfCommand>>20, maxOfCommand/minOfAnswer)
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type limitedBody struct {
	io.ReadCloser

	of *limited
}

// Read implements io.Reader.
func (b limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.of.left.Add(-int64(n)) <= 0 && err == nil {
		err = b.of.exceeded()
	}
	return n, err
}
