package notary

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

func TestFetch(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	ev := mustFetch(t, r, nil)

	keys := func(role string) []string { return []string{v.roles[role].keys[0].canonical} }
	end := v.roles["targets"].expires
	want := []trust.Statement{
		{Digest: digestOf("one"), Tag: "v1", Role: "ci", Keys: keys("targets/ci"), NotAfter: end},
		{Digest: digestOf("one"), Tag: "v1", Role: "qa", Keys: keys("targets/qa"), NotAfter: end},
	}
	if diff := cmp.Diff(want, ev.Statements("v1", "")); diff != "" {
		t.Errorf("statements of the tag (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, ev.Statements("", digestOf("one"))); diff != "" {
		t.Errorf("statements of the digest (-want +got):\n%s", diff)
	}
	if got := len(ev.Statements("v2", "")) + len(ev.Statements("", digestOf("two"))); got != 0 {
		t.Errorf("got %d statements about an unsigned tag and digest, want 0", got)
	}
	if at, file := ev.Expiry(); !at.Equal(v.roles["timestamp"].expires) || file != "timestamp.json" {
		t.Errorf("Expiry: got %s %s", at, file)
	}
}

// A first fetch requests four files and the delegations. It requests files below the timestamp only
// by hash.
func TestFetchColdRequests(t *testing.T) {
	v := newVirtual(t)
	mustFetch(t, v.root(v.config()), nil)
	got := v.requests()
	if len(got) != 6 {
		t.Fatalf("got %d requests, want 4 and one for each of 2 delegations: %q", len(got), got)
	}
	for _, name := range got {
		if name != "root.json" && name != "timestamp.json" && strings.Count(name, ".") != 2 {
			t.Errorf("got a request for %s without its hash", name)
		}
	}
}

func TestFetchUnchanged(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	v.requests()
	if again := mustFetch(t, r, previous); again != previous {
		t.Error("got other evidence for an unchanged repository")
	}
	if diff := cmp.Diff([]string{"timestamp.json"}, v.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestFetchChanged(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	v.requests()
	qa := v.role("targets/qa")
	qa.targets["v1"] = entry("two")
	before := v.current
	v.bump("targets/qa", "snapshot", "timestamp")
	v.publishOnly(before, "targets/qa", "snapshot", "timestamp")
	next := mustFetch(t, r, previous)
	if diff := cmp.Diff([]string{"ci one", "qa two"}, signedBy(next, "v1")); diff != "" {
		t.Errorf("signed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ci one", "qa one"}, signedBy(previous, "v1")); diff != "" {
		t.Errorf("the earlier evidence has changed (-want +got):\n%s", diff)
	}
	var requests []string
	for _, name := range v.requests() {
		role, _, _ := strings.Cut(name, ".")
		requests = append(requests, role)
	}
	slices.Sort(requests)
	if diff := cmp.Diff([]string{"snapshot", "targets/qa", "timestamp"}, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestFetchUnsigned(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	v.serve["root"], v.serve["timestamp"] = notFound, notFound
	ev := mustFetch(t, r, nil)
	if _, ok := ev.(trust.Unsigned); !ok {
		t.Fatalf("got %T for a repository without metadata, want Unsigned", ev)
	}
	if again := mustFetch(t, r, ev); again != ev {
		t.Error("got other evidence for a repository that is still without metadata")
	}
	clear(v.serve)
	if diff := cmp.Diff([]string{"ci one", "qa one"}, signedBy(mustFetch(t, r, ev), "v1")); diff != "" {
		t.Errorf("signed once there is metadata (-want +got):\n%s", diff)
	}
}

// A repository that was signed before does not become unsigned when the server loses its files.
func TestFetchSignedBeforeAndGone(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		v.serve[role] = notFound
	}
	_, err := r.Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataMissing, testGUN, "timestamp.json")
	// The same holds for a Root that does not accept the earlier evidence.
	other := v.config()
	other.RootKeys = []PEM{{Field: "x", Data: string(newKey(t, "ecdsa", "").bare)}}
	_, err = v.root(other).Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataMissing, "root.json")
}
