package bench

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/test/handmade"
)

// estate is the store and tracker of a manager with n repositories. Each repository has its own
// policy.
type estate struct {
	store   *store.Store
	tracker *store.Tracker
	images  []string // one of each repository
	signers *handmade.Signers
}

// newEstate returns an estate whose n repositories are verified by the real verifier, from files in
// memory.
func newEstate(tb testing.TB, n int) *estate {
	tb.Helper()
	s, files := published(tb, n)
	root, err := notary.New(pin(s), memory(files))
	check(tb, err)
	e := emptyEstate(tb, root, n)
	e.signers = s
	each(tb, n, 2, func(ctx context.Context, i int) error {
		image, err := imageref.Parse(e.images[i])
		if err != nil {
			return err
		}
		return e.tracker.Ensure(ctx, key(image))
	})
	return e
}

// key returns the subject of an image under the trust root.
func key(image imageref.Ref) trust.Key {
	return trust.Key{Root: "acme-notary", Subject: trust.Subject{Repository: image.Name()}}
}

// emptyEstate returns an estate with n policies and no verified repository yet.
func emptyEstate(tb testing.TB, root trust.Root, n int) *estate {
	tb.Helper()
	e := &estate{
		store: store.New(store.Options{Uncovered: policy.UncoveredDeny, ShortNames: policy.ShortNamesDockerIO}),
	}
	e.publish(root)
	e.tracker = store.NewTracker(e.store, clock.RealClock{}, func(string) {})
	for i := range n {
		e.policy(tb, fmt.Sprintf("team-%d", i), v1alpha1.ImagePattern(fmt.Sprintf("%s/team-%d/**", host, i)))
		e.images = append(e.images, repositoryName(i)+":"+tag(i%tags))
	}
	e.store.MarkPrimed()
	return e
}

// publish publishes the trust root that the policies name, or replaces it.
func (e *estate) publish(root trust.Root) {
	e.store.PutRoot("acme-notary", store.Root{Verifier: root, Format: "Notary"})
}

func (e *estate) policy(tb testing.TB, name string, pattern v1alpha1.ImagePattern) {
	tb.Helper()
	p, err := policy.Compile(name, &v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{pattern}, TrustRoots: []v1alpha1.ObjectName{"acme-notary"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}}, Mode: v1alpha1.ModeEnforce,
		PinDigests: v1alpha1.PinPods,
	})
	check(tb, err)
	e.store.PutPolicy(p, "1")
}

// decide decides on an image with the current snapshot, as the gate does. It returns an error
// unless the image is admitted with a digest.
func (e *estate) decide(image string, now time.Time) error {
	d := e.decision(image, now)
	if d.Verdict != policy.Admitted || d.Digest == "" {
		return errors.New("denied: " + d.Message)
	}
	return nil
}

func (e *estate) decision(image string, now time.Time) policy.Decision {
	snapshot := e.store.Load()
	return snapshot.Policies.Decide(
		policy.Request{Image: image, NamespaceLabels: map[string]string{"env": "production"}, Now: now}, snapshot)
}
