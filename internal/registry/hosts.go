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
	// maxRequests bounds the requests in flight to one host, over all clients that share Hosts. One
	// half is for known signed repositories and for probes of the server, the other half for the
	// rest, so that a flood of made-up names delays no refresh. Background requests may use half of
	// each half, so that requests with a waiting caller get through.
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
)

// Hosts limits the requests to each host, a name and a port, over all clients that have it in their
// Config. It bounds the requests in flight and honours Retry-After. Create it with NewHosts. It is
// safe for concurrent use.
type Hosts struct {
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

// slots are the semaphores of one half of a host's requests. Waiters acquire in order of arrival.
type slots struct{ all, background *semaphore.Weighted }

func newHost() *host {
	half := func() slots {
		return slots{all: semaphore.NewWeighted(maxRequests / 2), background: semaphore.NewWeighted(maxRequests / 4)}
	}
	return &host{known: half(), others: half()}
}

// acquire waits for the semaphores of a host, which depend on the purpose of ctx. The caller must
// call release. The error is a *trust.Fault: the host is paused, or ctx ended first.
func (h *Hosts) acquire(ctx context.Context, name string) (release func(), err error) {
	at, err := h.addUser(name)
	if err != nil {
		return nil, err
	}
	purpose := trust.PurposeOf(ctx)
	p := at.others
	if purpose.Known {
		p = at.known
	}
	var acquired []*semaphore.Weighted
	release = func() {
		for _, s := range acquired {
			s.Release(1)
		}
		h.removeUser(at)
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
			release()
			return nil, trust.NewFault(v1alpha1.ReasonTimeout,
				"%s: too many requests to this host are in flight (at most %d), and none finished in time: %w; "+
					"does the server answer them?", name, maxRequests, err)
		}
		acquired = append(acquired, s)
	}
	if err := h.checkPause(name); err != nil { // a response may have set a pause meanwhile
		release()
		return nil, err
	}
	return release, nil
}

// addUser returns the state of a host that is not paused, and prevents its eviction until
// removeUser.
func (h *Hosts) addUser(name string) (*host, error) {
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
	if err := h.pauseFault(name, at); err != nil {
		return nil, err
	}
	at.users++
	return at, nil
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
func (h *Hosts) checkPause(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pauseFault(name, h.hosts[name])
}

// pauseFault is checkPause for a caller that holds the lock.
func (h *Hosts) pauseFault(name string, at *host) error {
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
