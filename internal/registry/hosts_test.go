package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A crowd is a handler that blocks requests and counts them.
type crowd struct {
	now, most atomic.Int64
	release   chan struct{}
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	select {
	case <-c.release:
	case <-r.Context().Done():
	}
	_, _ = w.Write([]byte(`{}`))
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// The requests in flight to one host are bounded over several clients, and each purpose has its own
// semaphores.
func TestThreatRequestsToOneHostAreBounded(t *testing.T) {
	ca := newCA(t)
	all := &crowd{release: make(chan struct{})}
	s := serve(t, ca, all.ServeHTTP)
	hosts := NewHosts(time.Now)
	var clients []*Client
	for range 4 {
		clients = append(clients,
			newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Hosts: hosts, Timeout: time.Minute}))
	}
	var wg sync.WaitGroup
	flood := func(purpose trust.Purpose, atOnce int64) {
		t.Helper()
		before := all.now.Load()
		for i := range 4 * maxRequests {
			purpose := purpose
			if !purpose.Background { // one namespace alone gets two thirds of what is free
				purpose.Namespace = fmt.Sprint("team-", i%4)
			}
			wg.Go(func() {
				if _, err := clients[i%len(clients)].Get(trust.WithPurpose(t.Context(), purpose), fmt.Sprint(i), file,
					100); err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "the semaphores of a purpose to be acquired",
			func() bool { return all.now.Load()-before == atOnce })
	}
	flood(trust.Purpose{Background: true}, maxRequests/4)
	flood(trust.Purpose{}, maxRequests/4)
	flood(trust.Purpose{Background: true, Known: true}, maxRequests/4)
	flood(trust.Purpose{Known: true}, maxRequests/4)

	other := serve(t, ca, answer(http.StatusOK, "application/json", `{}`))
	c := newClient(t, Config{Server: other.URL, CABundle: string(ca.PEM), Hosts: hosts})
	if _, err := c.Get(t.Context(), repository, file, 100); err != nil {
		t.Errorf("another host: got %v, want no delay", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := clients[0].Get(ctx, repository, file, 100)
	wantFault(t, err, v1alpha1.ReasonTimeout, "in flight", s.Host)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want an exceeded deadline", err)
	}
	close(all.release)
	wg.Wait()
	if most := all.most.Load(); most != maxRequests {
		t.Errorf("got %d requests in flight, want %d", most, maxRequests)
	}
	for name, at := range hosts.hosts {
		if at.users != 0 {
			t.Errorf("%s: got %d users without a request in flight, want 0", name, at.users)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		status int
		header http.Header
		least  time.Duration
		most   time.Duration
	}{
		"seconds":     {429, http.Header{"Retry-After": {"120"}}, 2 * time.Minute, 2 * time.Minute},
		"unavailable": {503, http.Header{"Retry-After": {" 7 "}}, 7 * time.Second, 7 * time.Second},
		"date": {
			503, http.Header{"Retry-After": {"Sun, 22 Nov 2026 12:01:30 GMT"}}, 90 * time.Second, 90 * time.Second,
		},
		"date of a clock that is off": {
			503,
			http.Header{"Retry-After": {"Sun, 22 Nov 2026 09:00:10 GMT"}, "Date": {"Sun, 22 Nov 2026 09:00:00 GMT"}},
			10 * time.Second, 10 * time.Second,
		},
		"date that is past":      {503, http.Header{"Retry-After": {"Sun, 22 Nov 2026 11:00:00 GMT"}}, 0, 0},
		"an hour":                {503, http.Header{"Retry-After": {"3600"}}, maxPause, maxPause},
		"a year":                 {503, http.Header{"Retry-After": {"31536000"}}, 0, 0},
		"beyond numbers":         {503, http.Header{"Retry-After": {"99999999999999999999"}}, 0, 0},
		"a year that is far off": {503, http.Header{"Retry-After": {"Fri, 31 Dec 9999 23:59:59 GMT"}}, 0, 0},
		"negative":               {503, http.Header{"Retry-After": {"-5"}}, 0, 0},
		"malformed":              {503, http.Header{"Retry-After": {"soon"}}, 0, 0},
		"unavailable, no header": {503, http.Header{}, 0, 0},
		"too many, no header":    {429, http.Header{}, 8 * defaultPause / 10, defaultPause},
		"too many, malformed":    {429, http.Header{"Retry-After": {"1.5"}}, 8 * defaultPause / 10, defaultPause},
		"too many, zero":         {429, http.Header{"Retry-After": {"0"}}, 8 * defaultPause / 10, defaultPause},
		"other failure":          {500, http.Header{"Retry-After": {"120"}}, 0, 0},
		"success":                {200, http.Header{"Retry-After": {"120"}}, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := pauseOf(&http.Response{StatusCode: tt.status, Header: tt.header}, now); got < tt.least ||
				got > tt.most {
				t.Errorf("got a pause of %s, want %s to %s", got, tt.least, tt.most)
			}
		})
	}
}

// Every client honours Retry-After, up to its bound.
func TestRetryAfterIsHonoured(t *testing.T) {
	ca := newCA(t)
	for name, status := range map[string]int{"too many requests": 429, "unavailable": 503} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakeClock(time.Now())
			var well atomic.Bool
			s := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
				if !well.Load() {
					w.Header().Set("Retry-After", "86399")
					w.WriteHeader(status)
				}
			})
			hosts := NewHosts(clock.Now)
			cfg := Config{Server: s.URL, CABundle: string(ca.PEM), Hosts: hosts}
			_, err := newClient(t, cfg).Get(t.Context(), repository, file, 100)
			wantFault(t, err, v1alpha1.ReasonServerError, fmt.Sprint(status))
			until := clock.Now().Add(maxPause)
			if f := trust.AsFault(err, ""); !f.RetryAt.Equal(until) {
				t.Errorf("got RetryAt %s, want %s", f.RetryAt, until)
			}
			well.Store(true)
			clock.Step(maxPause - longestWait - time.Second)
			_, err = newClient(t, cfg).Get(t.Context(), repository+"/other", file, 100)
			wantFault(t, err, v1alpha1.ReasonServerError, "Retry-After", until.UTC().Format(time.RFC3339), s.Host)
			if f := trust.AsFault(err, ""); !f.RetryAt.Equal(until) || len(s.seen()) != 1 {
				t.Errorf("got RetryAt %s after %d requests, want %s and 1", f.RetryAt, len(s.seen()), until)
			}
			clock.Step(longestWait + time.Second)
			if _, err := newClient(t, cfg).Get(t.Context(), repository, file, 100); err != nil {
				t.Errorf("after the pause: got %v", err)
			}
		})
	}
}

// ofOneShare is how many requests of one half to a host one namespace alone may have in flight.
const ofOneShare = 11

// A request that waits for a semaphore when the host requests a pause is not sent.
func TestRetryAfterStopsWaitingRequests(t *testing.T) {
	ca := newCA(t)
	release := make(chan struct{})
	s := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)})
	var wg sync.WaitGroup
	for range 2 * maxRequests {
		wg.Go(func() {
			if _, err := c.Get(t.Context(), repository, file, 100); err == nil {
				t.Error("got no fault")
			}
		})
	}
	eventually(t, "the semaphores to be acquired", func() bool { return len(s.seen()) == ofOneShare })
	close(release)
	wg.Wait()
	if n := len(s.seen()); n != ofOneShare {
		t.Errorf("got %d requests at the host, want those in flight at its response", n)
	}
}

// The token service is a separate host: its pause does not delay the server, and the reverse.
func TestTokenServiceIsAHostOfItsOwn(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	s := serve(t, ca, guarded(bearer(token.URL+"/token")))
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), TokenServices: []string{token.Host}})
	for n := 1; n <= 2; n++ {
		_, err := c.Get(t.Context(), repository, file, 100)
		wantFault(t, err, v1alpha1.ReasonServerError, "token service", token.Host)
		if f := trust.AsFault(err, ""); f.RetryAt.IsZero() {
			t.Error("got a fault without RetryAt")
		}
		if len(s.seen()) != n || len(token.seen()) != 1 {
			t.Errorf("got %d requests to the server and %d to the token service, want %d and 1", len(s.seen()),
				len(token.seen()), n)
		}
	}
}

// Hosts change with the trust roots, and may request pauses. The cached hosts are bounded, except
// for those in use.
func TestThreatHostsAreForgotten(t *testing.T) {
	for name, status := range map[string]int{"answers": http.StatusOK, "requests a pause": http.StatusTooManyRequests} {
		t.Run(name, func(t *testing.T) {
			hosts := NewHosts(time.Now)
			stay, err := hosts.acquire(t.Context(), "used.example.com:443")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 4 * maxHosts {
				name := fmt.Sprintf("%d.example.com:443", i)
				leave, err := hosts.acquire(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				hosts.recordPause(name, &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {"300"}}})
				leave()
				if n := len(hosts.hosts); n > maxHosts || hosts.hosts["used.example.com:443"] == nil {
					t.Fatalf("got %d cached hosts, the one in use among them: %t", n,
						hosts.hosts["used.example.com:443"] != nil)
				}
			}
			stay()
		})
	}
}
