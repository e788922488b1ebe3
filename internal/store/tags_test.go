package store

import (
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
)

// A signed tag that nothing uses any more is dropped together with its evidence, which nothing
// would refresh. What the format holds of a repository stays.
func TestSignedTagIsDroppedWithItsEvidence(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	server := tufserver.Run(t)
	signed, err := server.Create("", now.AddDate(1, 0, 0), true)
	if err != nil {
		t.Fatal(err)
	}
	const name, digest = "registry.example.com/acme/app", "sha256:" +
		"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	_, err = signed.Delegate(metadata.TARGETS, "ci", 1, "*/*/*")
	if err == nil {
		err = signed.Sign("ci", name+":v1", digest, 1)
	}
	if err == nil {
		err = signed.Publish(metadata.TARGETS, "ci")
	}
	if err != nil {
		t.Fatal(err)
	}
	root, err := tuf.Format{}.Build(&v1alpha1.TrustRoot{Spec: v1alpha1.TrustRootSpec{TUF: &v1alpha1.TUFSpec{
		Server: server.URL, CABundle: v1alpha1.PEMBundle(server.CA.PEM), Root: signed.RootJSON(1),
	}}}, trust.Material{})
	if err != nil {
		t.Fatal(err)
	}
	clock, s := clocktesting.NewFakeClock(now), New(Options{})
	s.PutRoot("acme", Root{Verifier: root})
	tracker := NewTracker(s, clock, func(string) {})
	var keys []trust.Key
	for _, image := range []string{name + ":v1", name + "@" + digest} {
		ref, err := imageref.Parse(image)
		if err != nil {
			t.Fatal(err)
		}
		k := trust.Key{Root: "acme", Subject: root.Subject(ref)}
		if err := tracker.Ensure(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	held := func() []bool {
		return []bool{s.Load().evidence.get(keys[0]) != nil, s.Load().evidence.get(keys[1]) != nil}
	}
	tracker.prune()
	if got := held(); !got[0] || !got[1] {
		t.Fatalf("got the tag held %t and the repository held %t while they are in use, want both", got[0], got[1])
	}
	clock.Step(forgetTagAfter + time.Second)
	tracker.prune()
	if got := held(); got[0] || !got[1] {
		t.Errorf("got the tag held %t and the repository held %t, want only the repository", got[0], got[1])
	}
}
