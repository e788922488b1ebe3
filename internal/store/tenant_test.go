package store

import (
	"context"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

// tenanted are registries that pull secrets may read too. For these each fetch has the fault, if it
// is set.
type tenanted struct {
	*digests.Registries

	fault *trust.Fault
}

func (*tenanted) Tenant(about trust.Subject, namespace string) (trust.Subject, bool) {
	about.Tenant = namespace
	return about, true
}

func (r *tenanted) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if about.Tenant != "" && r.fault != nil {
		return nil, r.fault
	}
	about.Tenant = ""
	return r.Registries.Fetch(ctx, about, held)
}

// What the pull secrets of a namespace may not read, and what only they may read, is no fault of
// the trust root. All else is.
func TestPullSecretsAreNoFaultOfTheRoot(t *testing.T) {
	unauthorized := trust.NewFault(v1alpha1.ReasonUnauthorized, "access was refused")
	for name, test := range map[string]struct {
		tenant  string // whose pull secrets are used; empty: the credentials of the trust root
		held    bool   // evidence is held when the fetch fails
		fault   *trust.Fault
		failing int
	}{
		"pull secrets are refused":                      {tenant: "team-a", fault: unauthorized},
		"pull secrets are refused what they could read": {tenant: "team-a", held: true, fault: unauthorized},
		"an outage, for pull secrets":                   {tenant: "team-a", fault: broken, failing: 1},
		"the root is refused at first sight":            {fault: unauthorized},
		"the root is refused what it could read":        {held: true, fault: unauthorized, failing: 1},
		"an outage at first sight":                      {fault: broken, failing: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &tenanted{Registries: &digests.Registries{}}
			r.Sign(digestOne, "ci", "qa")
			r.Sign(digestTwo, "ci", "qa")
			b := newBench(r)
			r.Now = b.clock.Now
			b.Reset("acme", time.Minute)
			other := imageref.Ref{Host: "other.example.com", Path: "acme/app", Digest: digestOne}
			if err := b.Ensure(t.Context(), trust.Key{Root: "acme", Subject: r.Subject(other)}); err != nil {
				t.Fatal(err)
			}
			about := r.Subject(imageref.Ref{Host: app.Host, Path: app.Path, Digest: digestTwo})
			about.Tenant = test.tenant
			k := trust.Key{Root: "acme", Subject: about}
			b.Retain([]trust.Key{k})
			if test.held {
				if err := b.Ensure(t.Context(), k); err != nil {
					t.Fatal(err)
				}
			}
			if test.tenant != "" {
				r.fault = test.fault
			} else {
				r.Fail(app.Host, test.fault)
			}
			b.clock.Step(time.Second)
			if err := b.Renew(t.Context(), k, b.clock.Now()); err == nil {
				t.Fatal("the fetch succeeded, want a fault")
			}
			s := b.Status("acme")
			if s.Tracked != 2 || s.Failing != test.failing || len(s.Faults) != test.failing {
				t.Errorf("got %d of %d failing: %v, want %d of 2", s.Failing, s.Tracked, s.Faults, test.failing)
			}
			if s.Hosts != 2 || len(s.HostFaults) != test.failing {
				t.Errorf("got %d hosts, faults %v, want 2 and %d faults", s.Hosts, s.HostFaults, test.failing)
			}
		})
	}
}
