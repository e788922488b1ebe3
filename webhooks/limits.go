package webhooks

import (
	"time"

	"github.com/countersign-dev/countersign/internal/port"
)

// Limits bound what the clients of a Server can take. Together with the port.Limits of a Gate they
// bound what all clients can take. All must be positive.
type Limits struct {
	// Read bounds the TLS handshake, and the time from the first byte of a request to the last one
	// of its body.
	Read time.Duration
	// Write bounds the time from the header of a request to the last byte of its answer.
	Write time.Duration
	// Connections bound the connections that are open, and HTTP2 those of them that carry requests
	// over HTTP/2. Handshakes bound those whose TLS handshake has taken more than 4 KiB and is not
	// done. None takes more than 16 KiB.
	Connections, HTTP2, Handshakes port.ConnLimits
}

// DefaultLimits are 5 s to read, as an API server sends a review at one stroke, 15 s to write, as
// API servers wait for 10 s, and the connections of port.DefaultConnLimits.
func DefaultLimits() Limits {
	limits := Limits{Read: 5 * time.Second, Write: 15 * time.Second}
	limits.Connections, limits.HTTP2, limits.Handshakes = port.DefaultConnLimits()
	return limits
}

// The bounds of one connection that no caller sets.
const (
	// maxHeader bounds the header of a request, in bytes. API servers send some hundreds, and a
	// bearer token where they are given one.
	maxHeader = 16 << 10
	// maxStreams bounds the requests under way on one connection over HTTP/2. An API server with
	// more opens another one.
	maxStreams = 100
	// maxFrame, streamWindow and connectionWindow bound what is held of HTTP/2 that no handler has
	// read yet, in bytes. A window of a stream is a small part of the connection's, so that large
	// reviews that wait for room do not hold up the small ones.
	maxFrame, streamWindow, connectionWindow = 16 << 10, 64 << 10, 1 << 20
)
