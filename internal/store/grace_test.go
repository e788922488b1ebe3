package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

var ended = trust.NewFault(v1alpha1.ReasonMetadataExpired, "expired")

func (b *bench) graceIs(t *testing.T, after string, want time.Duration) {
	t.Helper()
	if _, grace, err := b.Load().Evidence(key(app)); err != nil || grace != want {
		t.Fatalf("after %s: grace %s, error %v; want %s", after, grace, err, want)
	}
}

func graced(root trust.Root, grace time.Duration) *bench {
	b := newBench(root)
	b.PutRoot("acme", Root{Verifier: root, ExpiredGrace: grace})
	b.Reset("acme", time.Minute)
	return b
}

// The grace applies while refreshes fail, and never after a fetch that found only expired evidence:
// it covers outages of the server, not missing signatures.
func TestThreatGraceIsForOutagesAlone(t *testing.T) {
	first, second := &fact{}, &fact{}
	root := &scripted{fetch: returning(first, nil)}
	b := graced(root, time.Hour)
	steps := []struct {
		after string
		e     trust.Evidence
		fault *trust.Fault
		want  time.Duration
	}{
		{"a fetch", first, nil, 0},
		{"a fault", nil, slow, time.Hour},
		{"another", nil, trust.NewFault(v1alpha1.ReasonRollback, "old"), time.Hour},
		{"a fetch that finds the same", first, nil, 0},
		{"a fault", nil, slow, time.Hour},
		{"a fetch that finds that it has expired", nil, ended, 0},
		{"a fault after that", nil, slow, 0},
		{"a fetch that finds what is new", second, nil, 0},
		{"a fault again", nil, slow, time.Hour},
	}
	for _, s := range steps {
		root.fetch = returning(s.e, nil)
		if s.fault != nil {
			root.fetch = returning(nil, s.fault)
		}
		b.clock.Step(time.Hour)
		if err := b.Renew(t.Context(), key(app), b.clock.Now()); (err != nil) != (s.fault != nil) {
			t.Fatalf("%s: %v", s.after, err)
		}
		b.graceIs(t, s.after, s.want)
	}
}

// Without a grace, a failed fetch changes nothing and makes no snapshot.
func TestNoGraceNothingNoted(t *testing.T) {
	root := &scripted{fetch: returning(&fact{}, nil)}
	b := graced(root, 0)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	before := b.Load()
	root.fetch, root.probe = returning(nil, refused), refused
	b.pass(time.Minute)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err == nil {
		t.Fatal("the server was not down")
	}
	b.graceIs(t, "a fault", 0)
	if b.Load() != before {
		t.Error("a snapshot was made for a fetch that failed")
	}
}

// No fetch fails while the server is down, because none is sent. The grace then depends on the
// state of the server.
func TestGraceWhileTheServerIsDown(t *testing.T) {
	b, o, _ := known(t, 20)
	b.PutRoot("acme", Root{Verifier: o, ExpiredGrace: time.Hour})
	b.Reset("acme", time.Minute)
	b.pass(3 * time.Minute)
	b.graceIs(t, "an edit", 0)
	o.is(refused, refused)
	b.pass(3 * time.Minute)
	for i, image := range append(repositories(20), app) {
		if _, grace, err := b.Load().Evidence(key(image)); grace != time.Hour || err != nil {
			t.Errorf("repository %d: grace %s, error %v, with the server down", i, grace, err)
		}
	}
	// An edit of the trust root does not change that.
	b.PutRoot("acme", Root{Verifier: o, ExpiredGrace: 2 * time.Hour})
	b.Reset("acme", time.Minute)
	b.graceIs(t, "an edit during the outage", 2*time.Hour)
	o.is(nil, nil)
	b.pass(3 * time.Minute)
	b.graceIs(t, "the server is back", 0)
	b.DropRoot("acme")
	b.PutRoot("acme", Root{Verifier: o})
	if n := len(b.Load().down); n > 0 {
		t.Errorf("%d roots are down that have no grace", n)
	}
}

// Evidence restored at the start is used with the grace until the first fetch ends. Expired
// evidence is fetched at once.
func TestGraceOfWhatIsReadBack(t *testing.T) {
	held := &fact{expires: time.Unix(1_800_000_000, 0).Add(-time.Minute)}
	root := &scripted{
		fetch: returning(nil, slow), unpack: func([]byte, trust.Evidence) (trust.Evidence, error) { return held, nil },
	}
	b := newBench(root)
	_, _ = b.PutRootWith("acme", Root{Verifier: root, ExpiredGrace: time.Hour},
		written(map[string][]byte{app.Repository(): []byte("x")}), nil)
	b.graceIs(t, "a start", time.Hour)
	b.Reset("acme", 24*time.Hour)
	b.turn()
	if root.fetches.Load() == 0 {
		t.Error("what has expired is not fetched at once")
	}
	b.graceIs(t, "a fetch that failed", time.Hour)
	s := b.Status("acme")
	if want := held.expires.Add(time.Hour); s.InGrace != 1 || !s.GraceEnds.Equal(want) {
		t.Errorf("in grace %d until %s, want 1 until %s", s.InGrace, s.GraceEnds, want)
	}
	b.clock.Step(59 * time.Minute)
	if n := b.Status("acme").InGrace; n != 0 {
		t.Errorf("%d in grace after it has ended", n)
	}
}

// dated is evidence of files.
type dated struct {
	fact
	files []trust.File
}

func (d *dated) Files() []trust.File { return d.files }

func TestStatusOfExpiry(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	in := func(days int) time.Time { return now.AddDate(0, 0, days) }
	top := func(timestamp int, delegations ...trust.File) *dated {
		return &dated{fact{expires: in(timestamp)}, append([]trust.File{
			{Name: "timestamp.json", NotAfter: in(timestamp), Unattended: true},
			{Name: "targets.json", NotAfter: in(100)},
		}, delegations...)}
	}
	delegation := func(name string, days int) trust.File {
		return trust.File{Name: "targets/" + name + ".json", NotAfter: in(days), Part: true, Kind: "delegation"}
	}
	repository := func(i int) string { return fmt.Sprintf("registry.example.com/acme/app-%d", i) }
	tests := map[string]struct {
		held               []*dated
		expires            string
		signed, unattended Expiry
		delegation         time.Time
	}{
		"nothing": {},
		"the timestamp comes first": {
			held: []*dated{top(14), top(10)}, expires: repository(1) + " timestamp.json",
			signed:     Expiry{in(100), repository(0), "targets.json"},
			unattended: Expiry{in(10), repository(1), "timestamp.json"},
		},
		"a delegation": {
			held:       []*dated{top(14), top(14, delegation("ci", 50), delegation("qa", 2))},
			expires:    repository(1) + " targets/qa.json",
			signed:     Expiry{in(2), repository(1), "targets/qa.json"},
			unattended: Expiry{in(14), repository(0), "timestamp.json"}, delegation: in(2),
		},
		"a delegation that has expired is not in use": {
			held: []*dated{top(14, delegation("qa", -2))}, expires: repository(0) + " timestamp.json",
			signed:     Expiry{in(-2), repository(0), "targets/qa.json"},
			unattended: Expiry{in(14), repository(0), "timestamp.json"}, delegation: in(-2),
		},
		"one that was abandoned": {
			held:       []*dated{top(14, delegation("qa", -31), delegation("ci", 3))},
			expires:    repository(0) + " targets/ci.json",
			signed:     Expiry{in(3), repository(0), "targets/ci.json"},
			unattended: Expiry{in(14), repository(0), "timestamp.json"}, delegation: in(3),
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			root := &scripted{}
			b := newBench(root)
			for i, e := range c.held {
				root.fetch = returning(e, nil)
				if err := b.Ensure(t.Context(),
					key(imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/app-%d", i)})); err != nil {
					t.Fatal(err)
				}
			}
			s := b.Status("acme")
			if s.ExpiresFirst != c.expires || !s.Expiries["delegation"].Equal(c.delegation) {
				t.Errorf("first %q, delegations %s; want %q, %s", s.ExpiresFirst, s.Expiries["delegation"], c.expires,
					c.delegation)
			}
			if diff := cmp.Diff([]Expiry{c.signed, c.unattended}, []Expiry{s.Signed, s.Unattended}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// If a fetch fails before an edit has verified its subject, the grace applies after the
// verification.
func TestGraceOfWhatAnEditHasLeftForLater(t *testing.T) {
	b := graced(&scripted{fetch: returning(&fact{}, nil)}, time.Hour)
	images := b.holdsMany(t)
	edited := &scripted{fetch: returning(nil, slow)}
	failed := map[imageref.Ref]bool{}
	var asked sync.Once
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if b.Load().Root("acme").Verifier != edited {
			<-time.After(recheckTime)
			return held, nil
		}
		asked.Do(func() {
			for _, image := range images {
				failed[image] = b.Ensure(t.Context(), key(image)) != nil
			}
		})
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited, ExpiredGrace: time.Hour})
	some := 0
	for _, image := range images {
		want := time.Duration(0)
		if failed[image] {
			want = time.Hour
			some++
		}
		if _, grace, err := b.Load().Evidence(key(image)); grace != want || err != nil {
			t.Errorf("grace %s, error %v; want %s", grace, err, want)
		}
	}
	if some == 0 {
		t.Fatal("no fetch failed in between")
	}
}

// A trust root whose server is down may be edited so that it cannot be used. Its status then shows
// no grace, and nothing remains of it after its deletion.
func TestUnusableRootWhileTheServerIsDown(t *testing.T) {
	b, o, _ := known(t, 20)
	b.PutRoot("acme", Root{Verifier: o, ExpiredGrace: time.Hour})
	b.Reset("acme", time.Minute)
	b.pass(3 * time.Minute) // each is fetched anew
	o.is(refused, refused)
	b.pass(3 * time.Minute)
	if len(b.Load().down) != 1 {
		t.Fatalf("%d servers are down, want the one", len(b.Load().down))
	}
	b.PutRoot("acme", Root{Fault: trust.NewFault(v1alpha1.ReasonInvalidKey, "no key"), ExpiredGrace: time.Hour})
	if s := b.Status("acme"); s.InGrace != 0 {
		t.Errorf("%d repositories are in grace under a trust root that cannot be used", s.InGrace)
	}
	b.DropRoot("acme")
	if n := len(b.Load().down); n > 0 {
		t.Errorf("%d servers are down of a trust root that is gone", n)
	}
}
