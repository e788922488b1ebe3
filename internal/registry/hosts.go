package registry

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxRequests is how many requests to one host are under way at once, of all clients that share
	// Hosts: half of them for repositories known to be signed and for the server itself, and half
	// for the others, so that a flood of made-up names holds up no refresh. In the background half
	// of each half can be used, so that whoever waits finds a place.
	maxRequests = 32
	// maxPause bounds how long a host is left alone because it asked for it. Who asks for more is
	// asked again after it.
	maxPause = 5 * time.Minute
	// absurdPause and what is longer is no pause that a server means, and counts as if nothing had
	// been said.
	absurdPause = 24 * time.Hour
	// maxHosts is how many hosts are kept in mind that nothing is under way to: servers and token
	// services that requests were made to, or that asked for a pause. Beyond it all of those are
	// forgotten, with their pauses.
	maxHosts = 256
	// defaultPause is for a host that turns requests away (429) without saying for how long.
	defaultPause = time.Second
)

// Hosts shares out what is asked of each host, a name and a port, among all clients that have it in
// their Config: how many requests are under way at once, and until when the host has asked to be
// left alone. Make it with NewHosts; it is safe for concurrent use.
type Hosts struct {
	now func() time.Time

	mu    sync.Mutex
	hosts map[string]*host
}

// NewHosts returns an object in which no host has been asked for anything.
func NewHosts(now func() time.Time) *Hosts { return &Hosts{now: now, hosts: map[string]*host{}} }

// host is one host that requests are made to, or that is left alone.
type host struct {
	users         int       // requests that are under way or wait for a place
	until         time.Time // before which it is not asked for anything
	known, others places
}

// places are a half of those of a host. Whoever waits the longest comes first.
type places struct{ all, background *semaphore.Weighted }

func newHost() *host {
	half := func() places {
		return places{all: semaphore.NewWeighted(maxRequests / 2), background: semaphore.NewWeighted(maxRequests / 4)}
	}
	return &host{known: half(), others: half()}
}

// enter waits for a place at a host, by the purpose of ctx. The result gives it back. The error is
// a *trust.Fault: the host wants to be left alone, or ctx was over first.
func (h *Hosts) enter(ctx context.Context, name string) (leave func(), err error) {
	at, err := h.use(name)
	if err != nil {
		return nil, err
	}
	purpose := trust.PurposeOf(ctx)
	p := at.others
	if purpose.Known {
		p = at.known
	}
	var held []*semaphore.Weighted
	leave = func() {
		for _, s := range held {
			s.Release(1)
		}
		h.unuse(at)
	}
	wanted := []*semaphore.Weighted{p.all}
	if purpose.Background {
		wanted = []*semaphore.Weighted{p.background, p.all}
	}
	for _, s := range wanted {
		if !s.TryAcquire(1) {
			err = s.Acquire(ctx, 1)
		}
		if err != nil {
			leave()
			return nil, trust.NewFault(v1alpha1.ReasonTimeout,
				"%s: no place came free in time beside the other requests to this host, of which at most %d are "+
					"under way: %w; "+
					"does the server answer them?", name, maxRequests, err)
		}
		held = append(held, s)
	}
	if err := h.paused(name); err != nil { // it may have asked for it while this one waited
		leave()
		return nil, err
	}
	return leave, nil
}

// use returns the state of a host that may be asked, and has it kept until unuse.
func (h *Hosts) use(name string) (*host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.hosts[name]
	if at == nil {
		if len(h.hosts) >= maxHosts {
			h.sweep()
		}
		at = newHost()
		h.hosts[name] = at
	}
	if err := h.fault(name, at); err != nil {
		return nil, err
	}
	at.users++
	return at, nil
}

func (h *Hosts) unuse(at *host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at.users--
}

// sweep drops hosts that nothing is known of, or any that nothing is under way to where that leaves
// too many, each of which may have asked for a pause. The lock is held.
func (h *Hosts) sweep() {
	now := h.now()
	maps.DeleteFunc(h.hosts, func(_ string, at *host) bool { return at.users == 0 && !at.until.After(now) })
	if len(h.hosts) >= maxHosts {
		maps.DeleteFunc(h.hosts, func(_ string, at *host) bool { return at.users == 0 })
	}
}

// paused returns the fault of a host that wants to be left alone, or nil.
func (h *Hosts) paused(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fault(name, h.hosts[name])
}

// fault is paused; the lock is held.
func (h *Hosts) fault(name string, at *host) error {
	if at == nil || !at.until.After(h.now()) {
		return nil
	}
	f := trust.NewFault(v1alpha1.ReasonServerError,
		"%s: the server has asked not to be asked for anything before %s (Retry-After)", name,
		at.until.UTC().Format(time.RFC3339))
	f.RetryAt = at.until
	return f
}

// until returns when a host may be asked again that has just turned a request away; zero: at any
// time.
func (h *Hosts) until(name string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.hosts[name]; at != nil && at.until.After(h.now()) {
		return at.until
	}
	return time.Time{}
}

// heed notes what an answer says of the time until the next request. The place of its request is
// still held.
func (h *Hosts) heed(name string, resp *http.Response) {
	pause := pauseOf(resp, h.now())
	if pause <= 0 {
		return
	}
	until := h.now().Add(pause)
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.hosts[name]; at != nil && until.After(at.until) {
		at.until = until
	}
}

// pauseOf returns for how long an answer asks for no further requests (RFC 9110, section 10.2.3,
// and RFC 6585, section 4). What is malformed, negative or absurd counts as not said.
func pauseOf(resp *http.Response, now time.Time) time.Duration {
	var least time.Duration
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		least = defaultPause - time.Duration(
			rand.Float64()*float64(defaultPause)/5) //nolint:gosec // spreads load, guards nothing
	case http.StatusServiceUnavailable:
	default:
		return 0
	}
	asked := retryAfter(resp.Header, now)
	if asked <= 0 || asked >= absurdPause {
		return least
	}
	return max(least, min(asked, maxPause))
}

// retryAfter reads the header of the name, zero where it cannot be read. A date counts from the
// server's own where that is given, so that its clock does not matter.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return at.Sub(now)
}
