package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// outage is a trust root whose server goes down and comes back.
type outage struct {
	scripted
	probes        atomic.Int32
	down, probeIs atomic.Pointer[trust.Fault] // what fetches and probes answer; nil: all is well
	before        atomic.Pointer[chan struct{}]
}

func newOutage() *outage {
	o := &outage{}
	o.fetchOf = func(context.Context, string, trust.Evidence) (trust.Evidence, error) {
		if f := o.down.Load(); f != nil {
			return nil, f
		}
		return &fact{}, nil
	}
	return o
}

func (*outage) Host(trust.Subject) string { return "notary.example.com" }

func (o *outage) Probe(context.Context, string) error {
	o.probes.Add(1)
	if wait := o.before.Load(); wait != nil {
		<-*wait
	}
	f := o.probeIs.Load()
	if f == nil {
		return nil
	}
	return f
}

func (o *outage) is(fetch, probe *trust.Fault) {
	o.down.Store(fetch)
	o.probeIs.Store(probe)
}

var (
	refused = trust.NewFault(v1alpha1.ReasonUnreachable, "the connection was refused")
	broken  = trust.NewFault(v1alpha1.ReasonServerError, "status 500")
	slow    = trust.NewFault(v1alpha1.ReasonTimeout, "no answer in time")
)

// turn fetches everything that is due, and waits for the end.
func (b *bench) turn() (n int) {
	for {
		due := b.acme().dueNow()
		if len(due) == 0 {
			return n
		}
		n += len(due)
		for _, k := range due {
			<-k.start().done
		}
	}
}

// pass advances the clock, with the ticks of Run.
func (b *bench) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		b.clock.Step(time.Second)
		b.turn()
	}
}

func known(t *testing.T, n int) (*bench, *outage, []imageref.Ref) {
	t.Helper()
	o := newOutage()
	b := newBench(o)
	b.Reset("acme", time.Minute)
	images := append(repositories(n), app)
	for _, i := range images {
		if err := b.Ensure(t.Context(), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	b.turn()
	return b, o, images
}

func (b *bench) fails(t *testing.T, want *trust.Fault) {
	t.Helper()
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("Renew = %v, want %v", err, want)
	}
}

// A down server receives only one probe and one trial fetch in about 30 s. When it is back, every
// repository is fetched.
func TestOutageCostsProbesAlone(t *testing.T) {
	b, o, images := known(t, 100)
	evidence, _, err := b.Load().Evidence(key(app))
	if err != nil {
		t.Fatal(err)
	}
	b.PutRoot("other", Root{Verifier: newOutage()})
	b.Reset("other", time.Minute) // whose turns are free
	o.is(refused, refused)
	b.clock.Step(time.Minute)
	before := o.fetches.Load()
	b.turn()
	b.pass(2 * time.Second)
	if n := o.fetches.Load() - before; n > 2*maxBackground {
		t.Errorf("%d fetches went out before the server was found to be down, want no more than one turn", n)
	}
	before, probes := o.fetches.Load(), o.probes.Load()
	b.pass(10 * time.Minute)
	tried := int(o.fetches.Load() - before)
	if tried < 600/31 || tried > 21 {
		t.Errorf("%d fetches went out in ten minutes while the server was down, want one in about 30 s", tried)
	}
	if n := o.probes.Load() - probes; n < 600/31 || n > 40 {
		t.Errorf("%d probes went out in ten minutes, want one in about 30 s", n)
	}
	b.holds(t, evidence)
	if n := b.Status("acme").Failing; n > 2*maxBackground+tried {
		t.Errorf("%d repositories are failing, want those alone that the server was asked for", n)
	}
	if s := b.Status("acme"); s.Server == nil || s.Server.Reason != v1alpha1.ReasonUnreachable {
		t.Errorf("status has %v of the server", s.Server)
	}

	o.is(nil, nil)
	before = o.fetches.Load()
	b.pass(31*time.Second + catchUp)
	if n := int(o.fetches.Load() - before); n < len(images) || n > len(images)+10 {
		t.Errorf("%d fetches when the server was back, want one of each of %d repositories", n, len(images))
	}
	if s := b.Status("acme"); s.Failing > 0 || s.Server != nil {
		t.Errorf("status = %+v, want nothing that fails", s)
	}
}

// A failed fetch sends a probe at once. If it fails too, the server is down.
func TestFailingFetchHasTheServerProbed(t *testing.T) {
	b, o, _ := known(t, 1)
	o.is(refused, refused)
	b.clock.Step(2 * time.Second)
	probes := o.probes.Load()
	b.fails(t, refused)
	b.turn()
	if n := o.probes.Load() - probes; n != 1 || b.acme().outage(trust.Subject{}) == nil {
		t.Errorf("%d probes, and the outage is %v; want one, and the server to be down", n,
			b.acme().outage(trust.Subject{}))
	}
}

// When a server is back, the refreshes are spread over a while.
func TestRecoveryIsSpread(t *testing.T) {
	b, o, images := known(t, 200)
	o.is(refused, refused)
	b.clock.Step(time.Minute)
	b.turn()
	b.pass(10 * time.Second)
	o.is(nil, nil)
	b.clock.Step(lastProbe)
	before := o.fetches.Load()
	if b.acme().outage(trust.Subject{}) == nil {
		t.Fatal("the server is not down")
	}
	<-b.probing().done
	half := 0
	for _, e := range b.acme().entries {
		if !e.due.After(b.clock.Now().Add(catchUp / 2)) {
			half++
		}
	}
	if half < 60 || half > 140 {
		t.Errorf("%d of %d are due in the first half, want them spread", half, len(images))
	}
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil || o.fetches.Load() != before+1 {
		t.Errorf("who asks has %v after %d fetches, want one at once", err, o.fetches.Load()-before)
	}
}

// However many requests there are for a down server, it receives one probe a second. The first
// request after its recovery is served.
func TestDemandOfAServerThatIsDown(t *testing.T) {
	b, o, _ := known(t, 1)
	o.is(refused, refused)
	b.clock.Step(time.Minute)
	b.fails(t, refused)
	b.turn()
	before, probes := o.fetches.Load(), o.probes.Load()
	for range 30 {
		b.clock.Step(500 * time.Millisecond)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				unknown := imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/new-%d", i)}
				if err := b.Ensure(t.Context(), key(unknown)); !errors.Is(err, refused) {
					t.Errorf("first sight: %v, want the server's fault", err)
				}
				b.fails(t, refused)
			})
		}
		wg.Wait()
		b.turn()
	}
	if n := o.fetches.Load() - before; n > 0 {
		t.Errorf("%d fetches went out", n)
	}
	if n := o.probes.Load() - probes; n < 10 || n > 15 {
		t.Errorf("%d probes went out in 15 s, want one a second", n)
	}
	o.is(nil, nil)
	b.clock.Step(time.Second)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Errorf("Renew = %v, want the first who asks to be served", err)
	}
	unknown := imageref.Ref{Host: "registry.example.com", Path: "acme/new-1"}
	if err := b.Ensure(t.Context(), key(unknown)); err != nil {
		t.Errorf("first sight: %v", err)
	}
	b.pass(catchUp + 2*time.Second)
	if s := b.Status("acme"); s.Failing > 0 || o.fetches.Load()-before < 20 {
		t.Errorf("%d fetches, %d failing; want what was asked for during the outage to be fetched",
			o.fetches.Load()-before, s.Failing)
	}
}

// An attacker who often requests a repository at which the server fails does not delay others.
func TestThreatFailingRepositoryHoldsUpNoOther(t *testing.T) {
	for name, fault := range map[string]*trust.Fault{
		"server error": broken, "broken off": refused, "refused": trust.NewFault(v1alpha1.ReasonUnauthorized, "403"),
	} {
		t.Run(name, func(t *testing.T) {
			b, o, _ := known(t, 1)
			o.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
				if repository != appRepository {
					return nil, fault
				}
				return &fact{}, nil
			}
			probes := o.probes.Load()
			for i := range 60 {
				b.clock.Step(500 * time.Millisecond)
				bad := imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("evil/%d", i)}
				if err := b.Ensure(t.Context(), key(bad)); err == nil {
					t.Fatal("no fault")
				}
				b.turn()
				if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
					t.Fatalf("Renew = %v, want it not to be held up", err)
				}
			}
			if n := o.probes.Load() - probes; n > 31 {
				t.Errorf("%d probes in 30 s, want no more than one a second", n)
			}
		})
	}
}

// A server whose probes fail and whose fetches succeed is not down.
func TestProbeAloneIsNoOutage(t *testing.T) {
	b, o, _ := known(t, 1)
	o.is(nil, broken)
	b.pass(5 * time.Minute)
	if s := b.Status("acme"); s.Failing > 0 || s.Server == nil {
		t.Errorf("status = %+v, want the probe to fail and nothing else", s)
	}
	o.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		if repository != appRepository {
			return nil, broken
		}
		return &fact{}, nil
	}
	if err := b.Ensure(t.Context(), key(imageref.Ref{Host: "registry.example.com", Path: "evil/app"})); err == nil {
		t.Fatal("no fault")
	}
	b.pass(2 * time.Second)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Errorf("Renew = %v, want it not to be held up", err)
	}
}

// An attacker may often request a repository at which the server fails, while probes fail too. The
// tracker soon finds that fetches of other repositories succeed.
func TestThreatFailingRepositoryAndProbeAreNoOutage(t *testing.T) {
	for name, n := range map[string]int{"nothing known": 0, "much known": 20} {
		t.Run(name, func(t *testing.T) {
			o := newOutage()
			b := newBench(o)
			images := repositories(n)
			for _, i := range images {
				if err := b.Ensure(t.Context(), key(i)); err != nil {
					t.Fatal(err)
				}
			}
			b.clock.Step(time.Second)
			o.probeIs.Store(broken)
			o.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
				if strings.Contains(repository, "evil") {
					return nil, broken
				}
				return &fact{}, nil
			}
			b.Reset("acme", time.Minute)
			down, asked := 0, append(images, app)[0]
			for i := range 2 * lastProbe / time.Second {
				b.turn()
				bad := imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("evil/%d", i%5)}
				if err := b.Ensure(t.Context(), key(bad)); err == nil {
					t.Fatal("no fault")
				}
				if b.Renew(t.Context(), key(asked), b.clock.Now()) != nil {
					down++
				}
				b.clock.Step(time.Second)
			}
			if err := b.Renew(t.Context(), key(asked), b.clock.Now()); err != nil ||
				b.acme().outage(trust.Subject{}) != nil {
				t.Errorf("after %s: %v, want a server that answers not to be down", 2*lastProbe, err)
			}
			if n > 0 && down > 3 {
				t.Errorf("others were held up for %d s, want a moment", down)
			}
		})
	}
}

// A slow server looks like one that hangs, so a timeout does not open the circuit.
func TestTimeoutIsNoOutage(t *testing.T) {
	b, o, _ := known(t, 1)
	probes := o.probes.Load()
	o.is(slow, slow)
	b.clock.Step(time.Second)
	b.fails(t, slow)
	b.turn()
	if n := o.probes.Load() - probes; n > 0 {
		t.Errorf("%d probes because of a timeout", n)
	}
	o.is(refused, refused)
	b.pass(time.Minute)
	if b.acme().outage(trust.Subject{}) == nil {
		t.Fatal("the server is not down")
	}
	o.is(nil, slow)
	b.pass(lastProbe + time.Second)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Errorf("Renew = %v, want a server to be asked that may only be slow", err)
	}
}
