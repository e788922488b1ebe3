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
	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxRequests bounds the requests in flight to one host, over all clients that share Hosts. One
	// half is for known signed repositories and for probes of the server, the other half for the
	// rest, so that a flood of made-up names delays no refresh. Background requests may use half of
	// each half, so that requests with a waiting caller get through. Of these, each namespace has
	// its share.
	maxRequests = 32
	// maxPause bounds the time without requests after a Retry-After header. A longer one is cut to
	// it.
	maxPause = 5 * time.Minute
	// absurdPause is the least Retry-After that is ignored as a mistake of the server.
	absurdPause = 24 * time.Hour
	// maxHosts bounds the cached hosts, which are servers and token services. Beyond it, all hosts
	// without a request in flight are evicted, with their pauses.
	maxHosts = 256
	// defaultPause is the pause after a status 429 without a Retry-After header.
	defaultPause = time.Second
	// longestWait is the longest pause that a request with a waiting caller waits for.
	longestWait = 5 * time.Second
	// afterPause is the time over which such requests start once the pause is over.
	afterPause = 200 * time.Millisecond
)

// Hosts limits the requests to each host, a name and a port, over all clients that have it in their
// Config. It bounds the requests in flight and honours Retry-After. Create it with NewHosts. It is
// safe for concurrent use.
type Hosts struct {
	// Observer receives each request. Set it before the first one. Nil: none does.
	Observer Observer

	now func() time.Time

	mu    sync.Mutex
	hosts map[string]*host
}

// NewHosts returns an empty Hosts.
func NewHosts(now func() time.Time) *Hosts { return &Hosts{now: now, hosts: map[string]*host{}} }

// host is the state of one host.
type host struct {
	users         int       // requests in flight or waiting for a semaphore
	pausedUntil   time.Time // no requests before this time
	known, others slots
}

// slots are the semaphores of one half of a host's requests. Namespaces are served in rotation.
type slots struct {
	all        *fair.Semaphore
	background *semaphore.Weighted
}

func newHost() *host {
	half := func() slots {
		return slots{all: fair.NewSemaphore(maxRequests/2, 0), background: semaphore.NewWeighted(maxRequests / 4)}
	}
	return &host{known: half(), others: half()}
}

// acquire waits for the semaphores of a host, which depend on the purpose of ctx, and for the end
// of a short pause. The caller must call release. The error is a *trust.Fault: the host is paused,
// or ctx ended first.
func (h *Hosts) acquire(ctx context.Context, name string) (release func(), err error) {
	for waited := time.Duration(0); ; {
		pause, err := h.awaitPause(ctx, name, longestWait-waited)
		if err != nil {
			return nil, err
		}
		waited += pause
		release, err := h.acquireSlots(ctx, name)
		if err != nil {
			return nil, err
		}
		if h.checkPause(name) == nil { // a response may have set a pause meanwhile
			return release, nil
		}
		release()
	}
}

// awaitPause waits until a host is not paused, and returns for how long it waited. It returns the
// fault of the pause if no caller waits for the request, or if the pause is longer than most, or
// than ctx allows. Those that waited start spread over afterPause.
func (h *Hosts) awaitPause(ctx context.Context, name string, most time.Duration) (waited time.Duration, err error) {
	fault := h.checkPause(name)
	if fault == nil {
		return 0, nil
	}
	pause := fault.RetryAt.Sub(h.now())
	wait := pause + time.Duration(rand.Float64()*float64(afterPause)) //nolint:gosec // jitter, not a secret
	deadline, ok := ctx.Deadline()
	if trust.PurposeOf(ctx).Background || pause > most || ok && wait >= time.Until(deadline) {
		return 0, fault
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return wait, nil
	case <-ctx.Done():
		return 0, fault
	}
}

// acquireSlots waits for the semaphores of a host. Requests of admission may join the work while it
// waits: then it waits in their shares too, and no longer as work in the background.
func (h *Hosts) acquireSlots(ctx context.Context, name string) (release func(), err error) {
	at, purpose := h.addUser(name), trust.PurposeOf(ctx)
	of, shares, background := at.others, purpose.Shares(), false
	if purpose.Known {
		of = at.known
	}
	if purpose.Background {
		alone, end := shares.Alone(ctx, trust.BackgroundShare)
		err = of.background.Acquire(alone, 1)
		end()
		if background = err == nil; !background && ctx.Err() != nil {
			h.removeUser(at)
			return nil, busy(name, err)
		}
	}
	share, err := of.all.AcquireAny(ctx, shares)
	if err != nil {
		if background {
			of.background.Release(1)
		}
		h.removeUser(at)
		return nil, busy(name, err)
	}
	return func() {
		of.all.Release(share)
		if background {
			of.background.Release(1)
		}
		h.removeUser(at)
	}, nil
}

// busy returns the fault of a request that could not be sent in time.
func busy(name string, err error) *trust.Fault {
	return trust.NewFault(v1alpha1.ReasonTimeout,
		"%s: too many requests to this host are in flight (at most %d), and none finished in time: %w; "+
			"does the server answer them?", name, maxRequests, err)
}

// addUser returns the state of a host, and prevents its eviction until removeUser.
func (h *Hosts) addUser(name string) *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.hosts[name]
	if at == nil {
		if len(h.hosts) >= maxHosts {
			h.evict()
		}
		at = newHost()
		h.hosts[name] = at
	}
	at.users++
	return at
}

func (h *Hosts) removeUser(at *host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at.users--
}

// evict drops hosts without a request in flight and without a pause. If too many remain, it drops
// paused hosts without a request in flight too. The caller holds the lock.
func (h *Hosts) evict() {
	now := h.now()
	maps.DeleteFunc(h.hosts, func(_ string, at *host) bool { return at.users == 0 && !at.pausedUntil.After(now) })
	if len(h.hosts) >= maxHosts {
		maps.DeleteFunc(h.hosts, func(_ string, at *host) bool { return at.users == 0 })
	}
}

// checkPause returns the fault of a paused host, or nil.
func (h *Hosts) checkPause(name string) *trust.Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.hosts[name]
	if at == nil || !at.pausedUntil.After(h.now()) {
		return nil
	}
	f := trust.NewFault(v1alpha1.ReasonServerError,
		"%s: the server accepts no requests before %s (Retry-After)", name,
		at.pausedUntil.UTC().Format(time.RFC3339))
	f.RetryAt = at.pausedUntil
	return f
}

// retryAt returns when a host accepts requests again, and zero if it is not paused.
func (h *Hosts) retryAt(name string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.hosts[name]; at != nil && at.pausedUntil.After(h.now()) {
		return at.pausedUntil
	}
	return time.Time{}
}

// recordPause records the pause that a response requests. The request must still hold its
// semaphores.
func (h *Hosts) recordPause(name string, resp *http.Response) {
	pause := pauseOf(resp, h.now())
	if pause <= 0 {
		return
	}
	until := h.now().Add(pause)
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.hosts[name]; at != nil && until.After(at.pausedUntil) {
		at.pausedUntil = until
	}
}

// pauseOf returns the pause that a response requests (RFC 9110, section 10.2.3, and RFC 6585,
// section 4). It ignores a header that is malformed, negative or absurd.
func pauseOf(resp *http.Response, now time.Time) time.Duration {
	var least time.Duration
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		least = defaultPause - time.Duration(
			rand.Float64()*float64(defaultPause)/5) //nolint:gosec // jitter, not a secret
	case http.StatusServiceUnavailable:
	default:
		return 0
	}
	requested := retryAfter(resp.Header, now)
	if requested <= 0 || requested >= absurdPause {
		return least
	}
	return max(least, min(requested, maxPause))
}

// retryAfter reads the Retry-After header. It returns zero if the header cannot be read. It
// compares a date with the Date header if there is one, so that the server's clock does not matter.
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
