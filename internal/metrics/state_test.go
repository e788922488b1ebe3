package metrics_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/metrics"
)

func TestGauges(t *testing.T) {
	b := newBench(t)
	b.populate(t)
	began := time.Now()
	got := b.series(t)
	for name, value := range got {
		switch {
		case strings.HasPrefix(name, "countersign_trust_root_last_refresh_"), strings.HasPrefix(name,
			"countersign_trust_root_oldest_refresh_"):
			if age := began.Unix() - int64(value); age < 0 || age > 60 {
				t.Errorf("%s: got a time %d s ago, want at most 60", name, age)
			}
			got[name] = -1
		case strings.Contains(name, "_total"), strings.Contains(name, "_duration_"):
			delete(got, name)
		}
	}
	want := map[string]float64{
		`countersign_gate_ready`: 1,
		`countersign_gated`:      0,
		`countersign_serving_certificate_expiry_timestamp_seconds`:                      1_900_000_000,
		`countersign_trust_root_info{format="Notary",trust_root="acme-notary"}`:         1,
		`countersign_trust_root_info{format="Notary",trust_root="broken"}`:              1,
		`countersign_trust_root_ready{trust_root="acme-notary"}`:                        1,
		`countersign_trust_root_ready{trust_root="broken"}`:                             0,
		`countersign_trust_root_fresh{trust_root="acme-notary"}`:                        0,
		`countersign_trust_root_fresh{trust_root="broken"}`:                             0,
		`countersign_trust_root_repositories{state="fresh",trust_root="acme-notary"}`:   3,
		`countersign_trust_root_repositories{state="failing",trust_root="acme-notary"}`: 1,
		`countersign_trust_root_repositories{state="fresh",trust_root="broken"}`:        0,
		`countersign_trust_root_repositories{state="failing",trust_root="broken"}`:      0,
		`countersign_trust_root_expiry_timestamp_seconds{file="timestamp",trust_root="acme-notary"}`: float64(
			expiry.Unix()),
		`countersign_trust_root_expiry_timestamp_seconds{file="other",trust_root="acme-notary"}`: float64(
			expiry.Unix()),
		`countersign_trust_root_grace_repositories{trust_root="acme-notary"}`:               0,
		`countersign_trust_root_grace_repositories{trust_root="broken"}`:                    0,
		`countersign_trust_root_last_refresh_timestamp_seconds{trust_root="acme-notary"}`:   -1,
		`countersign_trust_root_oldest_refresh_timestamp_seconds{trust_root="acme-notary"}`: -1,
		`countersign_trust_root_refresh_interval_seconds{trust_root="acme-notary"}`:         60,
		`countersign_policy_info{mode="Enforce",policy="team-a"}`:                           1,
		`countersign_policy_info{mode="Warn",policy="team-b"}`:                              1,
		`countersign_policy_info{mode="Enforce",policy="team-c"}`:                           1,
		`countersign_policy_ready{policy="team-a"}`:                                         1,
		`countersign_policy_ready{policy="team-b"}`:                                         0,
		`countersign_policy_ready{policy="team-c"}`:                                         0,
		`countersign_policy_workloads{policy="team-a",state="compliant"}`:                   5,
		`countersign_policy_workloads{policy="team-a",state="violating"}`:                   2,
		`countersign_policy_workloads{policy="team-a",state="unchecked"}`:                   1,
		`countersign_break_glass_namespaces`:                                                1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("gauges (-want +got):\n%s", diff)
	}
}

func TestSeriesOfTheDeletedAreGone(t *testing.T) {
	b := newBench(t)
	b.populate(t)
	before := b.series(t)
	deletions := map[string]struct {
		remove func()
		label  string
		least  int // the minimum number of series before the deletion
	}{
		"policy": {func() { b.store.DropPolicy("team-a") }, `policy="team-a"`, 7},
		"trust root": {
			func() { b.store.DropRoot("acme-notary"); b.tracker.Forget("acme-notary") }, `trust_root="acme-notary"`, 10,
		},
		"namespace": {func() { delete(b.namespaces, "fire") }, `namespace="fire"`, 1},
	}
	with := func(series map[string]float64, label string) map[string]float64 {
		series = maps.Clone(series)
		maps.DeleteFunc(series, func(name string, _ float64) bool { return !strings.Contains(name, label) })
		return series
	}
	for name, d := range deletions {
		t.Run(name, func(t *testing.T) {
			if had := with(before, d.label); len(had) < d.least {
				t.Fatalf("got %v with the label %s, want at least %d", had, d.label, d.least)
			}
			d.remove()
			if left := with(b.series(t), d.label); len(left) > 0 {
				t.Errorf("after the deletion: got %v, want none", left)
			}
		})
	}
	after := b.series(t)
	for _, kept := range []string{
		`countersign_decisions_total{policy="team-b",reason="TrustRootNotReady",verdict="CouldNotCheck"}`,
		`countersign_decisions_total{policy="",reason="NotCovered",verdict="Admitted"}`,
	} {
		if after[kept] != before[kept] || after[kept] == 0 {
			t.Errorf("%s: got %v, want %v as before", kept, after[kept], before[kept])
		}
	}
}

// While the cache cannot list Namespaces, they have no gauge and no counter is dropped.
func TestNamespacesNotKnownYet(t *testing.T) {
	b := newBench(t)
	b.populate(t)
	b.Show(metrics.State{
		Store: b.store, Tracker: b.tracker, Namespaces: namespaces(nil), Ran: func() *compliance.Result { return nil },
		Gated: func() (bool, bool) { return false, false },
	})
	got := b.series(t)
	if got[`countersign_break_glass_admissions_total{namespace="fire"}`] != 1 {
		t.Error("got no counter for the namespace fire, want 1")
	}
	if _, ok := got["countersign_break_glass_namespaces"]; ok {
		t.Error("got a gauge of namespaces, want none")
	}
	if left := withPrefix(got, "countersign_policy_workloads"); len(left) > 0 {
		t.Errorf("a replica that evaluates no workloads: got %q, want none", left)
	}
	if left := withPrefix(got, "countersign_gated"); len(left) > 0 {
		t.Errorf("a replica that has not compared the webhook configurations: got %q, want none", left)
	}
}
