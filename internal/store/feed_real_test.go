package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// realFeed is a tracker of repositories on a real Notary server, with a clock that the test
// advances. A proxy counts the requests.
type realFeed struct {
	t      *testing.T
	b      *bench
	l      *listing
	faults *faultproxy.Proxy
	images []imageref.Ref
}

func newRealFeed(t *testing.T, n *notaryserver.Server, client *notaryserver.Client, images []imageref.Ref) *realFeed {
	t.Helper()
	var pins []string
	for _, i := range images {
		if err := client.Init(t.Context(), i.Repository()); err != nil {
			t.Fatal(err)
		}
		if err := client.AddHash(t.Context(), i.Repository(), "v1", 3, strings.Repeat("a", 64)); err != nil {
			t.Fatal(err)
		}
		pin, err := client.Root(i.Repository())
		if err != nil {
			t.Fatal(err)
		}
		pins = append(pins, pin.KeyID)
	}
	faults := faultproxy.Run(t, n.URL, n.CA)
	cfg := registry.Config{Server: faults.URL, CABundle: string(faults.CA.PEM) + string(n.CA.PEM)}
	if n.TokenService != "" {
		cfg.TokenServices = []string{n.TokenService}
	}
	get, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	root, err := notary.New(notary.Config{
		Name: "acme", RootKeyIDs: pins,
		Roles: []notary.Role{{Name: "admin", Delegations: []string{"targets"}, Threshold: 1}},
	}, get)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(root)
	b.clock.SetTime(time.Now())
	r := &realFeed{t: t, b: b, l: &listing{b: b}, faults: faults, images: images}
	b.Reset("acme", time.Minute)
	for _, i := range images {
		if err := b.Ensure(t.Context(), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// spent advances the clock by intervals and returns the number of requests by kind.
func (r *realFeed) spent(intervals int) map[string]int {
	r.t.Helper()
	r.faults.Reset()
	r.l.pass(r.t, time.Duration(intervals)*time.Minute)
	asked := map[string]int{}
	for _, q := range r.faults.Requests() {
		asked[q.Path]++
	}
	return asked
}

func (r *realFeed) timestamps(asked map[string]int) (n int) {
	for path, times := range asked {
		if strings.HasSuffix(path, "/timestamp.json") {
			n += times
		}
	}
	return n
}

func (r *realFeed) signs(image imageref.Ref, tag string) bool {
	r.t.Helper()
	ev, _, err := r.b.Load().Evidence(key(image))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(ev.Statements(tag, "")) > 0
}

// With a real server, a publication is seen within an interval, and only the published repositories
// are fetched. The tracker notices a server that has lost its storage.
func TestRealFeed(t *testing.T) {
	const feedPath = "/v2/_trust/changefeed"
	n := notaryserver.Run(t, notaryserver.Options{})
	client := notaryserver.RunClient(t, n)
	var images []imageref.Ref
	for i := range 4 {
		images = append(images, imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/app-%d", i)})
	}
	r := newRealFeed(t, n, client, images)
	r.spent(3) // the place is taken, and everything polled once after it

	asked := r.spent(3)
	if got := asked[feedPath]; got < 3 || got > 4 || r.timestamps(asked) > 0 {
		t.Errorf("asked for %v in 3 intervals without a publication, want the list once an interval and no timestamp",
			asked)
	}
	if err := client.AddHash(t.Context(), images[1].Repository(), "v2", 3, strings.Repeat("b", 64)); err != nil {
		t.Fatal(err)
	}
	if r.signs(images[1], "v2") {
		t.Fatal("seen before anything was asked for")
	}
	asked = r.spent(1)
	if !r.signs(images[1], "v2") {
		t.Error("a publication was not seen within an interval")
	}
	timestamp := "/v2/" + images[1].Repository() + "/_trust/tuf/timestamp.json"
	if asked[timestamp] != 1 || r.timestamps(asked) != 1 {
		t.Errorf("asked for %v, want the timestamp of what was published to and no other", asked)
	}

	r.faults.Set(faultproxy.Fault{Match: func(path string) bool { return path == feedPath }, Status: 404})
	if err := client.Remove(t.Context(), images[1].Repository(), "v2"); err != nil {
		t.Fatal(err)
	}
	asked = r.spent(2)
	if r.signs(images[1], "v2") {
		t.Error("a revocation was not seen within two intervals of a server whose list is gone")
	}
	if got := r.timestamps(asked); got < len(images) {
		t.Errorf("%d timestamps were asked for, want all to be polled", got)
	}
	if got := r.b.Status("acme"); got.Failing > 0 || got.Server != nil {
		t.Errorf("Status = %+v, want no fault but that of the list", got)
	}

	r.faults.Set()
	r.spent(6)
	if asked := r.spent(2); r.timestamps(asked) > 0 {
		t.Errorf("asked for %v, want the list to be gone by again", asked)
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Init(t.Context(), "registry.example.com/acme/new"); err != nil {
		t.Fatal(err)
	}
	r.spent(1)
	if got := r.b.Status("acme"); got.Failing != len(images) ||
		got.Faults[0].Fault.Reason != v1alpha1.ReasonMetadataMissing {
		t.Errorf("Status = %+v, want every repository to be missed", got)
	}
}

// The tracker polls a server that does not let this account read its change feed.
func TestRealFeedThatIsRefused(t *testing.T) {
	n := notaryserver.Run(t, notaryserver.Options{
		Auth: &notaryserver.Auth{Username: "admin", Password: "admin-password", AnonymousPull: true},
	})
	images := []imageref.Ref{
		{Host: "registry.example.com", Path: "acme/a"}, {Host: "registry.example.com", Path: "acme/b"},
	}
	r := newRealFeed(t, n, notaryserver.RunClient(t, n), images)
	asked := r.spent(10)
	if got := r.timestamps(asked); got < 18 {
		t.Errorf("%d timestamps in 10 intervals, want both repositories to be polled", got)
	}
	if got := r.b.Status("acme"); got.Failing > 0 || got.Server != nil || got.Tracked != 2 {
		t.Errorf("Status = %+v, want no fault", got)
	}
	// each of 4 readings is one request without a token, and one with it
	if got := asked["/v2/_trust/changefeed"]; got < 2 || got > 8 {
		t.Errorf("the list was asked for %d times", got)
	}
}

var _ trust.Feed = (*notary.Root)(nil)

var _ notary.CatalogGetter = (*registry.Client)(nil)
