package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Fault is one thing that goes wrong with requests. What is not set happens as it should, so that
// faults combine: a Delay before a Status, say.
type Fault struct {
	// Match chooses requests by path. Nil: every request.
	Match func(path string) bool
	// Times bounds how many requests meet with the fault. Zero: all of them.
	Times int

	// Delay goes before the answer, or before what is there in its place.
	Delay time.Duration
	// Hang never answers, until the client hangs up or the server is stopped.
	Hang bool
	// Drop closes the connection without an answer.
	Drop bool
	// Status is answered in place of what the server says, with Body and with RetryAfter as the
	// header of that name, in seconds or as a date.
	Status     int
	RetryAfter string
	Body       string
	// Old answers what the server said for the same file when BackUp was called; where it said
	// nothing, it is asked.
	Old bool
	// Cut breaks the connection after this many bytes of the body.
	Cut int
	// Truncate leaves this many bytes of the body, and says that they are all.
	Truncate int
	// Corrupt flips one bit in the middle of the body.
	Corrupt bool
}

// Request is one that came, in the order of their coming.
type Request struct {
	// Path is the URL's.
	Path string
	// At is when it came.
	At time.Time
	// Authorized tells whether it carried an Authorization header; the server may think otherwise
	// of it.
	Authorized bool
}

// Rules are what goes wrong at a server, and what was asked of it.
type Rules struct {
	stopped chan struct{}

	mu       sync.Mutex
	faults   []Fault
	left     []int // of each fault with a bound
	requests []Request
	underWay int
	peak     int
}

// NewRules returns rules by which nothing goes wrong.
func NewRules() *Rules { return &Rules{stopped: make(chan struct{})} }

// Stop ends what hangs.
func (f *Rules) Stop() { close(f.stopped) }

// Set replaces what goes wrong, for requests that come from now on.
func (f *Rules) Set(faults []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.left = slices.Clone(faults), make([]int, len(faults))
	for i, fault := range faults {
		f.left[i] = fault.Times
	}
}

func (f *Rules) asked() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *Rules) mostAtOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peak
}

func (f *Rules) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests, f.peak = nil, f.underWay
}

// begin records a request and returns the first fault that is for it.
func (f *Rules) begin(r *http.Request) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, Request{
		Path: r.URL.Path, At: time.Now(), Authorized: r.Header.Get("Authorization") != "",
	})
	f.underWay++
	f.peak = max(f.peak, f.underWay)
	for i, fault := range f.faults {
		if fault.Match != nil && !fault.Match(r.URL.Path) {
			continue
		}
		if fault.Times > 0 {
			if f.left[i] == 0 {
				continue
			}
			f.left[i]--
		}
		return fault
	}
	return Fault{}
}

func (f *Rules) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.underWay--
}

// Before has requests meet with their faults, and passes on to next those that are answered at all,
// with what is to be done to the answer.
func (f *Rules) Before(next func(http.ResponseWriter, *http.Request, Fault)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.begin(r)
		end := sync.OnceFunc(f.end)
		defer end()
		w = answering{w, end}
		if !f.wait(r, fault) || fault.Drop {
			panic(http.ErrAbortHandler)
		}
		if fault.Status == 0 {
			next(w, r, fault)
			return
		}
		if fault.RetryAfter != "" {
			w.Header().Set("Retry-After", fault.RetryAfter)
		}
		w.WriteHeader(fault.Status)
		_, _ = io.WriteString(w, fault.Body)
	})
}

// answering tells of the first byte of an answer: whoever has read all of it may ask for more
// before its handler has returned.
type answering struct {
	http.ResponseWriter
	begun func()
}

// Unwrap is for http.ResponseController.
func (a answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a answering) WriteHeader(status int) {
	a.begun()
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a answering) Write(b []byte) (int, error) {
	a.begun()
	return a.ResponseWriter.Write(b)
}

// wait takes as long as a fault has it; it returns false where there is nobody any more to answer
// to.
func (f *Rules) wait(r *http.Request, fault Fault) bool {
	var over <-chan time.Time
	switch {
	case fault.Hang: // nothing ends it
	case fault.Delay > 0:
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		over = timer.C
	default:
		return true
	}
	select {
	case <-over:
		return true
	case <-r.Context().Done():
	case <-f.stopped:
	}
	return false
}

// spoil returns a body as a fault has it, and the length that the answer gives.
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

// broken is the rest of a body that does not come.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection is cut on purpose") }
