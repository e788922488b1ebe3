package webhooks

import (
	"time"

	"github.com/countersign-dev/countersign/internal/port"
)

// Limits are the timeouts and connection limits of a Server. The port.Limits of a Gate limit the
// memory of the requests. All must be positive.
type Limits struct {
	// Read is the timeout of the TLS handshake, and of the time from the first byte of a request to
	// the last byte of its body.
	Read time.Duration
	// Write is the timeout from the header of a request to the last byte of its answer.
	Write time.Duration
	// Connections limit the open connections, and HTTP2 those with requests over HTTP/2. Handshakes
	// limit those with an unfinished TLS handshake of more than 4 KiB. A handshake of more than
	// 16 KiB always fails.
	Connections, HTTP2, Handshakes port.ConnLimits
}

// DefaultLimits are 5 s to read, since an API server sends a review at once; 15 s to write, since
// an API server waits for 10 s; and port.DefaultConnLimits.
func DefaultLimits() Limits {
	limits := Limits{Read: 5 * time.Second, Write: 15 * time.Second}
	limits.Connections, limits.HTTP2, limits.Handshakes = port.DefaultConnLimits()
	return limits
}

// The limits of one connection that are not configurable.
const (
	// maxHeader is the maximum length of a request's header, in bytes. API servers send some
	// hundreds, and a bearer token if they are configured with one.
	maxHeader = 16 << 10
	// maxStreams is the maximum number of requests in flight on one HTTP/2 connection. An API
	// server with more requests opens another connection.
	maxStreams = 100
	// maxFrame, streamWindow and connectionWindow limit how many bytes of HTTP/2 are buffered
	// before a handler reads them. The window of a stream is a small part of the connection's
	// window, so that large reviews that wait for memory do not block small ones.
	maxFrame, streamWindow, connectionWindow = 16 << 10, 64 << 10, 1 << 20
)
