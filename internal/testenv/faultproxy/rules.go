package faultproxy

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Fault is one thing that goes wrong with requests. A field that is not set changes nothing, so
// fields combine, for example Delay with Status.
type Fault struct {
	// Match selects requests by path. Nil: every request.
	Match func(path string) bool
	// Method selects requests by method. Empty: every method.
	Method string
	// Times bounds how many requests the fault applies to. Zero: all of them.
	Times int

	// Delay is the time before the response, or before the fault that replaces it.
	Delay time.Duration
	// Hang sends no response, until the client closes the connection or the server stops.
	Hang bool
	// Hold sends no response until the faults are replaced. The request then goes through.
	Hold bool
	// Drop closes the connection without a response.
	Drop bool
	// Status replaces the server's response. Body is the body, and RetryAfter the header of that
	// name, in seconds or as a date.
	Status     int
	RetryAfter string
	Body       string
	// Header is set in the response. An empty value removes a header.
	Header map[string]string
	// Endless sends a body that has no end, until the client closes the connection or the server
	// stops.
	Endless bool
	// Old serves the response to the same file that BackUp copied. Without a copy the proxy
	// forwards the request.
	Old bool
	// Cut closes the connection after this many bytes of the body.
	Cut int
	// Truncate sends this many bytes of the body, with a Content-Length that matches.
	Truncate int
	// Corrupt flips one bit in the middle of the body.
	Corrupt bool
}

// Request is a recorded request.
type Request struct {
	// Path is the path of its URL.
	Path string
	// At is its time of arrival.
	At time.Time
	// Authorized says that it carried an Authorization header, valid or not.
	Authorized bool
}

// Rules are the faults of a server, and the requests that it received.
type Rules struct {
	stopped chan struct{}

	mu       sync.Mutex
	replaced chan struct{} // closed when the faults are replaced
	faults   []Fault
	left     []int // how many more requests each fault with a bound applies to
	requests []Request
	inFlight int
	peak     int
}

// NewRules returns rules without faults.
func NewRules() *Rules { return &Rules{stopped: make(chan struct{}), replaced: make(chan struct{})} }

// Stop ends the requests that hang.
func (f *Rules) Stop() { close(f.stopped) }

// Set replaces the faults for requests that arrive from now on.
func (f *Rules) Set(faults []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.replaced)
	f.replaced = make(chan struct{})
	f.faults, f.left = slices.Clone(faults), make([]int, len(faults))
	for i, fault := range faults {
		f.left[i] = fault.Times
	}
}

func (f *Rules) recorded() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *Rules) peakInFlight() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peak
}

func (f *Rules) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests, f.peak = nil, f.inFlight
}

// begin records a request and returns the first fault that matches it, and a channel that is closed
// when the faults are replaced.
func (f *Rules) begin(r *http.Request) (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, Request{
		Path: r.URL.Path, At: time.Now(), Authorized: r.Header.Get("Authorization") != "",
	})
	f.inFlight++
	f.peak = max(f.peak, f.inFlight)
	for i, fault := range f.faults {
		if fault.Match != nil && !fault.Match(r.URL.Path) || fault.Method != "" && fault.Method != r.Method {
			continue
		}
		if fault.Times > 0 {
			if f.left[i] == 0 {
				continue
			}
			f.left[i]--
		}
		return fault, f.replaced
	}
	return Fault{}, f.replaced
}

func (f *Rules) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight--
}

// Before returns a handler that applies faults to requests. It calls next for a request that the
// fault does not end, and passes the fault on: next applies it to the response.
func (f *Rules) Before(next func(http.ResponseWriter, *http.Request, Fault)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, replaced := f.begin(r)
		end := sync.OnceFunc(f.end)
		defer end()
		w = responding{w, end}
		if !f.wait(r, fault, replaced) || fault.Drop {
			panic(http.ErrAbortHandler)
		}
		if fault.Hold {
			fault = Fault{}
		}
		if fault.Status == 0 && !fault.Endless {
			next(w, r, fault)
			return
		}
		if fault.RetryAfter != "" {
			w.Header().Set("Retry-After", fault.RetryAfter)
		}
		fault.setHeader(w.Header())
		w.WriteHeader(cmp.Or(fault.Status, http.StatusOK))
		_, err := io.WriteString(w, fault.Body)
		for err == nil && fault.Endless && r.Method != http.MethodHead {
			if f.ended(r) {
				panic(http.ErrAbortHandler)
			}
			_, err = w.Write(make([]byte, 64<<10))
		}
	})
}

// setHeader sets the header of a fault.
func (fault Fault) setHeader(h http.Header) {
	for name, value := range fault.Header {
		if h.Del(name); value != "" {
			h.Set(name, value)
		}
	}
}

// ended reports whether the client has gone, or the rules have stopped.
func (f *Rules) ended(r *http.Request) bool {
	select {
	case <-r.Context().Done():
	case <-f.stopped:
	default:
		return false
	}
	return true
}

// responding calls begun before the first byte of a response. The request must end there: a client
// that has read the response may send the next request before the handler returns.
type responding struct {
	http.ResponseWriter
	begun func()
}

// Unwrap returns the writer for http.ResponseController.
func (r responding) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (r responding) WriteHeader(status int) {
	r.begun()
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r responding) Write(b []byte) (int, error) {
	r.begun()
	return r.ResponseWriter.Write(b)
}

// wait waits as long as a fault says; replaced ends a fault that holds. It returns false if the
// client has gone or the rules have stopped.
func (f *Rules) wait(r *http.Request, fault Fault, replaced <-chan struct{}) bool {
	var over <-chan time.Time
	switch {
	case fault.Hang: // no time ends it
		replaced = nil
	case fault.Hold:
	case fault.Delay > 0:
		replaced = nil
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		over = timer.C
	default:
		return true
	}
	select {
	case <-over:
		return true
	case <-replaced:
		return true
	case <-r.Context().Done():
	case <-f.stopped:
	}
	return false
}

// spoil applies a fault to a body. It returns the body and the Content-Length to send.
func (fault Fault) spoil(body []byte) (io.Reader, int) {
	if fault.Corrupt && len(body) > 0 {
		body = bytes.Clone(body)
		body[len(body)/2] ^= 1
	}
	if fault.Truncate > 0 && fault.Truncate < len(body) {
		body = body[:fault.Truncate]
	}
	if fault.Cut > 0 && fault.Cut < len(body) {
		return io.MultiReader(bytes.NewReader(body[:fault.Cut]), broken{}), len(body)
	}
	return bytes.NewReader(body), len(body)
}

// broken is a reader that fails, in place of the rest of a body.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the fault cuts the connection here") }
