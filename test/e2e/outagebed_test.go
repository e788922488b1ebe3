package e2e

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// madeUp is the number of made-up repositories in one call of demand.
const madeUp = 8

// outageBed is a bed with a second Notary server, which requires tokens. Both servers have the same
// two repositories.
type outageBed struct {
	*bed
	guarded *bed // the same cluster with the second server
	// old is a repository that the manager fetches before an outage, and new one that it does not.
	// v1 and v2 are the digests of the tags of these names.
	old, new, v1, v2 string
}

func newOutageBed(t *testing.T) *outageBed {
	b := newBed(t)
	second := *b
	second.notary = notaryserver.Run(t, notaryserver.Options{
		Auth: &notaryserver.Auth{Username: "reader", Password: "secret", AnonymousPull: true, Lifetime: tokenLife},
	})
	second.signer = notaryserver.RunClient(t, second.notary)
	o := &outageBed{bed: b, guarded: &second, old: registry + "/acme/known", new: registry + "/acme/unknown"}
	for _, at := range []*bed{b, &second} {
		for _, gun := range []string{o.old, o.new} {
			_, err := at.signer.CreateRepository(t.Context(), gun, "ci", "qa")
			must(t, err)
			o.v1 = at.sign(t, gun, "v1", 1, "ci", "qa")
			at.sign(t, gun, "half", 2, "ci")
		}
		var err error
		at.pin, err = at.signer.Root(o.old)
		must(t, err)
	}
	return o
}

// publish signs another tag in the known repository.
func (o *outageBed) publish(t *testing.T) {
	t.Helper()
	for _, at := range []*bed{o.bed, o.guarded} {
		o.v2 = at.sign(t, o.old, "v2", 3, "ci", "qa")
	}
}

// site is a namespace with a policy and a trust root. The manager reaches the trust root's server
// through a proxy.
type site struct {
	*outageBed
	at    *bed // the bed with the server
	name  string
	proxy *faultproxy.Proxy
}

func (o *outageBed) site(t *testing.T, name string, tokens bool) *site {
	t.Helper()
	s := &site{outageBed: o, at: o.bed, name: name}
	if tokens {
		s.at = o.guarded
	}
	s.proxy = faultproxy.Run(t, s.at.notary.URL, s.at.notary.CA)
	labels := map[string]string{"outage": name}
	s.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	root := s.at.trustRoot(name)
	root.Spec.Notary.Server, root.Spec.Notary.CABundle = s.proxy.URL, v1alpha1.PEMBundle(s.proxy.CA.PEM)
	if tokens {
		root.Spec.Notary.CABundle += v1alpha1.PEMBundle(s.at.notary.CA.PEM)
		root.Spec.Notary.TokenServices = []string{s.at.notary.TokenService}
	}
	s.create(t, root)
	policy := s.policy(name, registry+"/acme/**", name, "ci", "qa")
	policy.Spec.NamespaceSelector = &v1alpha1.NamespaceSelector{
		MatchLabels: map[string]v1alpha1.LabelValue{"outage": v1alpha1.LabelValue(name)},
	}
	s.create(t, policy)
	return s
}

// known makes the manager fetch the known repository.
func (s *site) known(t *testing.T) {
	t.Helper()
	s.serviceAccount(t, s.name)
	s.ready(t, &v1alpha1.ImagePolicy{}, s.name, metav1.ConditionTrue, v1alpha1.ReasonInForce)
	s.patiently(t, "the first fetch", func() error {
		return both(func() error { return s.admits(t, s.old+":v1") },
			func() error { return notSigned.mismatch(s.admits(t, s.old+":half")) })
	})
	s.condition(t, &v1alpha1.TrustRoot{}, s.name, v1alpha1.ConditionFresh, metav1.ConditionTrue,
		v1alpha1.ReasonRefreshed)
	s.proxy.BackUp()
}

// serve makes the proxy serve another certificate.
func (s *site) serve(t *testing.T, issue func(subject pkix.Name, hosts ...string) (*tlstest.Certificate, error)) {
	t.Helper()
	cert, err := issue(pkix.Name{CommonName: "fault-proxy"})
	must(t, err)
	s.proxy.Serve(cert)
}

// denial is an expected verdict: status code, and texts of which the message contains one. Code 0
// means admitted.
type denial struct {
	code int32
	says []string
}

var notSigned = denial{http.StatusForbidden, []string{`role "qa" has not signed`}}

// decide creates Pods of all images at once, checks the verdicts, and returns the time of each. The
// status code shows that the verdict is the webhook's: a timeout of the API server has another
// code.
func (s *site) decide(t *testing.T, want map[string]denial) map[string]time.Duration {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	got, took := map[string]error{}, map[string]time.Duration{}
	for image := range want {
		all.Go(func() {
			begun := time.Now()
			err := s.admits(t, image)
			if err != nil && want[image].code == 0 && strings.Contains(err.Error(), "not pinned to it; try again") {
				err = s.admits(t, image) // its evidence came after the time that Mutate has
			}
			mu.Lock()
			defer mu.Unlock()
			got[image], took[image] = err, time.Since(begun)
		})
	}
	all.Wait()
	for image, w := range want {
		if err := w.mismatch(got[image]); err != nil {
			t.Errorf("image %s: %v", image, err)
		}
	}
	return took
}

// mismatch returns an error if err differs from the expected verdict.
func (d denial) mismatch(err error) error {
	status, ok := err.(apierrors.APIStatus)
	switch {
	case d.code == 0 && err != nil:
		return fmt.Errorf("got %w, want it admitted", err)
	case d.code == 0:
		return nil
	case err == nil:
		return errors.New("admitted, want a denial")
	case !ok || status.Status().Code != d.code:
		return fmt.Errorf("got %w, want status %d", err, d.code)
	case !slices.ContainsFunc(d.says, func(text string) bool { return strings.Contains(err.Error(), text) }):
		return fmt.Errorf("got %w, want it to contain one of %q", err, d.says)
	}
	return nil
}

// admits creates a Pod of an image. It fails the test if an unsigned image is admitted, or a signed
// one with another digest: no outage excuses that.
func (s *site) admits(t *testing.T, image string) error {
	p := pod(s.name, image)
	if err := s.Create(t.Context(), p); err != nil {
		return err
	}
	digest, signed := map[string]string{s.old + ":v1": s.v1, s.new + ":v1": s.v1, s.old + ":v2": s.v2}[image]
	switch got := p.Spec.Containers[0].Image; {
	case !signed:
		t.Errorf("image %s was admitted and is not signed, want a denial", image)
	case got != image+"@"+digest:
		t.Errorf("got image %s admitted as %s, want digest %s", image, got, digest)
	}
	return nil
}

// judges returns nil if an image is denied by a verdict.
func (s *site) judges(t *testing.T, image string) error {
	return denial{http.StatusForbidden, []string{"has not signed"}}.mismatch(s.admits(t, image))
}

// demand creates Pods of made-up repositories. The manager cannot check them.
func (s *site) demand(t *testing.T) {
	t.Helper()
	want := map[string]denial{}
	for i := range madeUp {
		want[fmt.Sprintf("%s/acme/made-up-%d:v1", registry, i)] = denial{
			http.StatusServiceUnavailable, []string{`TrustRoot "` + s.name + `"`},
		}
	}
	s.decide(t, want)
}

// loads waits until the images that were signed since the outage began are admitted.
func (s *site) loads(t *testing.T) {
	t.Helper()
	s.patiently(t, "the signed images", func() error {
		return both(func() error { return s.admits(t, s.new+":v1") }, func() error { return s.admits(t, s.old+":v2") })
	})
}

// judgesAll waits until unsigned images are denied by a verdict.
func (s *site) judgesAll(t *testing.T) {
	t.Helper()
	s.patiently(t, "verdicts on unsigned images", func() error {
		return both(func() error { return s.judges(t, s.new+":half") },
			func() error { return s.judges(t, s.old+":half") })
	})
}

// both calls two functions at the same time.
func both(one, other func() error) error {
	done := make(chan error, 1)
	go func() { done <- one() }()
	return errors.Join(other(), <-done)
}

// patiently is poll.Await with a longer interval and timeout: many sites share a machine.
func (s *site) patiently(t *testing.T, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("timed out waiting for %s: %v", what, err)
		}
	}
}

// awaitFresh waits until condition Fresh has one of the reasons, and an event has it too.
func (s *site) awaitFresh(t *testing.T, reasons ...string) {
	t.Helper()
	s.patiently(t, fmt.Sprintf("Fresh with one of the reasons %q, and an event", reasons), func() error {
		c, err := s.fresh(t)
		switch {
		case err != nil:
			return err
		case !slices.Contains(reasons, c.Reason):
			return fmt.Errorf("got %s, %s: %s", c.Status, c.Reason, c.Message)
		}
		events, err := s.eventReasons(t)
		if err == nil && !slices.Contains(events, c.Reason) {
			err = fmt.Errorf("got events with the reasons %q, want %s", events, c.Reason)
		}
		return err
	})
}

// stayedFresh checks that condition Fresh is True, and that no event reports anything else.
func (s *site) stayedFresh(t *testing.T) {
	t.Helper()
	if c, err := s.fresh(t); err != nil || c.Status != metav1.ConditionTrue {
		t.Errorf("got Fresh %+v (%v), want True", c, err)
	}
	reasons, err := s.eventReasons(t)
	must(t, err)
	for _, reason := range reasons {
		if reason != v1alpha1.ReasonPinned && reason != v1alpha1.ReasonNothingTracked &&
			reason != v1alpha1.ReasonRefreshed {
			t.Errorf("got an event with reason %s, want none of a fault", reason)
		}
	}
}

func (s *site) fresh(t *testing.T) (*metav1.Condition, error) {
	root := &v1alpha1.TrustRoot{}
	if err := s.Get(t.Context(), client.ObjectKey{Name: s.name}, root); err != nil {
		return nil, err
	}
	c := meta.FindStatusCondition(root.Status.Conditions, v1alpha1.ConditionFresh)
	if c == nil {
		return nil, errors.New("got no condition Fresh")
	}
	return c, nil
}

// eventReasons returns the reasons of the events about the trust root.
func (s *site) eventReasons(t *testing.T) ([]string, error) {
	t.Helper()
	found, err := s.events(t.Context(), func(e *eventsv1.Event) bool {
		return e.Regarding.Kind == "TrustRoot" && e.Regarding.Name == s.name
	})
	var reasons []string
	for _, e := range found {
		reasons = append(reasons, e.Reason)
	}
	return reasons, err
}

// after returns an error until a duration has passed.
func after(begun time.Time, while time.Duration) error {
	if passed := time.Since(begun); passed < while {
		return fmt.Errorf("only %s have passed", passed)
	}
	return nil
}

func since(begun time.Time) time.Duration { return round(time.Since(begun)) }

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
