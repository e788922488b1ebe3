package registry

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// tagRequest is the request for the list of referrers of numbered(7) by the tag schema.
var tagRequest = "GET /v2/acme/app/manifests/" + strings.Replace(numbered(7), ":", "-", 1)

// lister is a registry whose lists of referrers a test sets.
type lister struct {
	*Images
	repository string
	server     *recorder
	seen       *observed

	mu       sync.Mutex
	api, tag http.HandlerFunc
}

func newLister(t *testing.T) *lister {
	t.Helper()
	l, ca := &lister{}, newCA(t)
	l.server = serveHTTP2(t, ca, func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		api, tag := l.api, l.tag
		l.mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/v2/acme/app/referrers/") {
			api(w, r)
		} else {
			tag(w, r)
		}
	})
	hosts, seen := observedHosts()
	l.seen = seen
	images, err := NewImages(ImagesConfig{
		Registries: map[string]Config{l.server.Host: {CABundle: string(ca.PEM)}}, Hosts: hosts,
		Timeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Images, l.repository = images, l.server.Host+"/acme/app"
	return l
}

func (l *lister) set(api, tag http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.api, l.tag = api, tag
}

// list lists the referrers of numbered(7), and returns the number of requests for each list.
func (l *lister) list(ctx context.Context, t *testing.T, want ...string) (ofAPI, ofTag int) {
	t.Helper()
	before := len(l.server.seen())
	list, err := l.Referrers(ctx, l.repository, numbered(7), "")
	var got []string
	for _, d := range list {
		got = append(got, d.Digest)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, r := range l.server.methods()[before:] {
		if r == tagRequest {
			ofTag++
		} else {
			ofAPI++
		}
	}
	return ofAPI, ofTag
}

func (l *lister) index(t *testing.T, digests ...string) http.HandlerFunc {
	t.Helper()
	return answer(http.StatusOK, indexMediaType, indexOf(t, digests...))
}

// TestReferrersAtOnce checks that both lists are requested at once of a registry that is not known
// to serve the referrers API: neither is answered before the other is requested.
func TestReferrersAtOnce(t *testing.T) {
	l := newLister(t)
	var both sync.WaitGroup
	both.Add(2)
	together := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			both.Done()
			both.Wait()
			next(w, r)
		}
	}
	l.set(together(answer(http.StatusNotFound, "text/plain", "")), together(l.index(t, numbered(1))))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if ofAPI, ofTag := l.list(ctx, t, numbered(1)); ofAPI != 1 || ofTag != 1 {
		t.Errorf("got %d requests to the API and %d for the tag, want one of each", ofAPI, ofTag)
	}
}

// TestReferrersOfAKnownRegistry checks which requests follow once it is known how a registry lists
// referrers, and that it may change that.
func TestReferrersOfAKnownRegistry(t *testing.T) {
	l := newLister(t)
	none := answer(http.StatusNotFound, "text/plain", "")
	l.set(l.index(t, numbered(1)), l.index(t, numbered(2)))
	l.list(t.Context(), t, numbered(1)) // the list of the API counts, whatever has the tag
	if ofAPI, ofTag := l.list(t.Context(), t, numbered(1)); ofAPI != 1 || ofTag != 0 {
		t.Errorf("known to serve the API: got %d requests to it and %d for the tag, want one and none", ofAPI, ofTag)
	}
	l.set(none, l.index(t, numbered(2)))
	for range 2 {
		if ofAPI, ofTag := l.list(t.Context(), t, numbered(2)); ofAPI != 1 || ofTag != 1 {
			t.Errorf("without the API: got %d requests to it and %d for the tag, want one of each", ofAPI, ofTag)
		}
	}
	l.set(l.index(t), l.index(t, numbered(2)))
	l.list(t.Context(), t)
	l.set(l.index(t, numbered(3)), none)
	if ofAPI, ofTag := l.list(t.Context(), t, numbered(3)); ofAPI != 1 || ofTag != 0 {
		t.Errorf("served again: got %d requests to the API and %d for the tag, want one and none", ofAPI, ofTag)
	}
}

// TestReferrersInTheBackground checks that a registry without the API gets no more requests for a
// refresh than one after the other, and one with the API a single one.
func TestReferrersInTheBackground(t *testing.T) {
	l := newLister(t)
	ctx := trust.WithPurpose(t.Context(), trust.Purpose{Background: true})
	l.set(l.index(t, numbered(1)), l.index(t, numbered(2)))
	if ofAPI, ofTag := l.list(ctx, t, numbered(1)); ofAPI != 1 || ofTag != 0 {
		t.Errorf("got %d requests to the API and %d for the tag, want one and none", ofAPI, ofTag)
	}
}

// TestReferrersDespiteAHangingTag checks that a list of the API is not delayed by the tag, whose
// request ends and is not reported as the host's fault.
func TestReferrersDespiteAHangingTag(t *testing.T) {
	l := newLister(t)
	requested, ended := make(chan struct{}), make(chan struct{})
	api := l.index(t, numbered(1))
	l.set(func(w http.ResponseWriter, r *http.Request) {
		<-requested
		api(w, r)
	}, func(_ http.ResponseWriter, r *http.Request) {
		close(requested)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l.list(ctx, t, numbered(1))
	if ctx.Err() != nil {
		t.Fatal("got the list after the deadline, want it at once")
	}
	<-ended
	l.seen.want(t, Exchange{Host: l.server.Host, Named: true, Result: ResultOK, Sent: true})
}

// TestReferrersWhereTheAPIFails checks that the list of the tag does not stand in for an API that
// is served and fails: whoever can make it fail could choose the list.
func TestReferrersWhereTheAPIFails(t *testing.T) {
	l := newLister(t)
	l.set(answer(http.StatusInternalServerError, "text/plain", ""), l.index(t, numbered(2)))
	list, err := l.Referrers(t.Context(), l.repository, numbered(7), "")
	wantFault(t, err, v1alpha1.ReasonServerError)
	if len(list) != 0 {
		t.Errorf("got %v, want no list", list)
	}
}
