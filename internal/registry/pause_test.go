package registry

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const pausedHost = "registry.example.com:443"

// pauseFor records that the host accepts no requests for some seconds.
func pauseFor(h *Hosts, seconds int) {
	h.recordPause(pausedHost, &http.Response{
		StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {strconv.Itoa(seconds)}},
	})
}

// newPaused returns Hosts in which the host is paused for some seconds.
func newPaused(t *testing.T, seconds int) *Hosts {
	t.Helper()
	h := NewHosts(time.Now)
	leave, err := h.acquire(t.Context(), pausedHost)
	if err != nil {
		t.Fatal(err)
	}
	pauseFor(h, seconds)
	leave()
	return h
}

// A request with a waiting caller waits for the end of a short pause, if its deadline allows that.
// Any other request gets the fault of the pause at once.
func TestWaitForTheEndOfAPause(t *testing.T) {
	for name, test := range map[string]struct {
		purpose  trust.Purpose
		pause    int           // in seconds
		deadline time.Duration // of the request; 0: none
		waits    bool
	}{
		"a request":                             {pause: 3, waits: true},
		"a request for a known subject":         {purpose: trust.Purpose{Known: true}, pause: 3, waits: true},
		"a deadline after the pause":            {pause: 3, deadline: 3*time.Second + afterPause, waits: true},
		"a deadline at the end of the pause":    {pause: 3, deadline: 3 * time.Second},
		"a deadline within the pause":           {pause: 3, deadline: time.Second},
		"the longest pause":                     {pause: 5, waits: true},
		"a longer pause":                        {pause: 6},
		"a background request":                  {purpose: trust.Purpose{Background: true}, pause: 3},
		"a background refresh of known subject": {purpose: trust.Purpose{Background: true, Known: true}, pause: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, pause := newPaused(t, test.pause), time.Duration(test.pause)*time.Second
				ctx := trust.WithPurpose(t.Context(), test.purpose)
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				began := time.Now()
				leave, err := h.acquire(ctx, pausedHost)
				took := time.Since(began)
				if !test.waits {
					wantFault(t, err, v1alpha1.ReasonServerError, "Retry-After", pausedHost)
					if f := trust.AsFault(err, ""); took != 0 || !f.RetryAt.Equal(began.Add(pause)) {
						t.Errorf("got the fault after %s with RetryAt %s, want it at once, with the end of the pause",
							took, f.RetryAt)
					}
					return
				}
				if err != nil {
					t.Fatalf("got %v, want the request to be sent after the pause", err)
				}
				leave()
				if took < pause || took > pause+afterPause {
					t.Errorf("got a wait of %s, want one of %s to %s", took, pause, pause+afterPause)
				}
			})
		})
	}
}

// A request whose caller leaves during a pause is not sent.
func TestCallerLeavesDuringAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPaused(t, 3)
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		_, err := h.acquire(ctx, pausedHost)
		wantFault(t, err, v1alpha1.ReasonServerError, "Retry-After")
		if took := time.Since(began); took != time.Second {
			t.Errorf("got the fault after %s, want it after 1 s, when the caller left", took)
		}
	})
}

// Several pauses in a row count together: a request waits no longer than for the longest one.
func TestPausesInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPaused(t, 3)
		began := time.Now()
		time.AfterFunc(3*time.Second-time.Millisecond, func() { pauseFor(h, 3) })
		_, err := h.acquire(t.Context(), pausedHost)
		wantFault(t, err, v1alpha1.ReasonServerError, "Retry-After")
		if took := time.Since(began); took > 3*time.Second+afterPause {
			t.Errorf("got the fault after %s, want it once the first pause has ended", took)
		}
	})
}
