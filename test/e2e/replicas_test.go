package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/webhooks"
)

// TestReplicas runs three managers behind one URL, and creates Pods continuously. It stops managers
// with a signal, kills one, cuts one off from the API server, and restarts the API server.
func TestReplicas(t *testing.T) {
	t.Parallel()
	r := newReplicas(t)
	r.half, r.signed, r.switched = r.repository(t, "ci", "qa"), r.repository(t, "ci", "qa"), r.repository(t, "ci", "qa")
	r.sign(t, r.half, "v1", 1, "ci")
	r.digest = r.sign(t, r.signed, "v1", 2, "ci", "qa")
	r.pinned = r.switched + ":v1@" + r.sign(t, r.switched, "v1", 3, "ci")
	r.create(t, r.policy("switched", r.switched, "acme-notary", "ci"))
	r.ready(t, &v1alpha1.ImagePolicy{}, "switched", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "production"}}
	r.update(t, p, func() { p.Spec.ExceptImages = []v1alpha1.ImagePattern{v1alpha1.ImagePattern(r.switched)} })
	r.load = r.bed.load(t, r.signed, r.excused.Load)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"decide alike", r.testAlike},
		{"edits reach all", r.testEdits},
		{"rolling restart", r.testRollingRestart},
		{"leader killed", r.testLeaderKilled},
		{"leader cut off", r.testLeaderCutOff},
		{"API server restarted", r.testAPIServerRestarted},
	} {
		if !t.Run(part.name, part.run) {
			break
		}
	}
	r.load.stop(t)
	r.oneWriterAtATime(t)
}

func (r *replicas) testAlike(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		code  int32 // 0: admitted
	}{
		"signed":                 {image: r.signed + ":v1@" + r.digest},
		"signed and not pinned":  {image: r.signed + ":v1", code: http.StatusServiceUnavailable},
		"half signed":            {image: r.half + ":v1", code: http.StatusForbidden},
		"no such tag":            {image: r.signed + ":unsigned", code: http.StatusForbidden},
		"unknown repository":     {image: registry + "/acme/never-seen:v1", code: http.StatusForbidden},
		"another policy":         {image: r.pinned},
		"no policy":              {image: "registry.example.com/other/app:v1"},
		"not a reference at all": {image: "UPPER CASE", code: http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/mutate-workloads", "/validate-workloads"} {
				var first verdict
				for i, m := range r.alive {
					v, err := review(t.Context(), m.Manager, path, c.image)
					must(t, err)
					if i == 0 {
						first = v
					}
					if diff := cmp.Diff(first, v); diff != "" {
						t.Errorf("%s at %s differs from the first replica (-first +this): %s", m.name, path, diff)
					}
					if path == "/validate-workloads" && (v.Allowed != (c.code == 0) || !v.Allowed && v.Code != c.code) {
						t.Errorf("%s: got %+v, want code %d", m.name, v, c.code)
					}
				}
			}
		})
	}
}

// testEdits measures how long an edit takes to reach each replica.
func (r *replicas) testEdits(t *testing.T) {
	var took []time.Duration
	for i := range 10 {
		qa := i%2 == 0
		since := r.edit(t, qa)
		for _, m := range r.alive {
			r.decides(t, m, !qa)
		}
		took = append(took, time.Since(since))
	}
	slices.Sort(took)
	t.Logf("an edit reached all replicas after %s (median), %s (slowest of %d)", took[len(took)/2], took[len(took)-1],
		len(took))
	if worst := took[len(took)-1]; worst > soon {
		t.Errorf("an edit took %s, want at most %s", worst, soon)
	}
}

// testRollingRestart replaces each replica with another, as a Deployment does. No failure is
// excused.
func (r *replicas) testRollingRestart(t *testing.T) {
	for _, m := range slices.Clone(r.alive) {
		r.load.more(t)
		led := r.leader(t) == m
		began := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- m.Stop() }()
		r.leaves(t, m)
		must(t, <-stopped)
		t.Logf("%s (leader: %t) ended after %s", m.name, led, time.Since(began).Round(10*time.Millisecond))
		if took := time.Since(began); took < shutdownDelay {
			t.Errorf("%s ended after %s, want at least the shutdown delay of %s", m.name, took, shutdownDelay)
		}
		r.gone(m)
		if led {
			began := r.edit(t, true)
			r.leader(t)
			if took := time.Since(began); took > released {
				t.Errorf("no replica led for %s, want at most %s: the lease was not released", took, released)
			}
			r.statusRight(t, "the leader was stopped", began)
			r.edit(t, false)
		}
		r.start(t)
		r.load.more(t)
	}
}

// leaves waits until a replica is no longer ready, and checks that it still responds.
func (r *replicas) leaves(t *testing.T, m *replica) {
	t.Helper()
	poll.Await(t, m.name+" to report that it is not ready", func() error {
		if m.Ready(t.Context()) == nil {
			return errors.New("got ready")
		}
		return nil
	})
	if v, err := review(t.Context(), m.Manager, webhooks.ValidatePath, r.signed+":v1@"+r.digest); err != nil ||
		!v.Allowed {
		t.Errorf("%s, no longer ready: got %+v, %v; want the image admitted", m.name, v, err)
	}
}

// released bounds the time until the next leader if the lease was released. A lease that is not
// released lasts at least 13 s more.
const released = 10 * time.Second

func (r *replicas) testLeaderKilled(t *testing.T) {
	m := r.leader(t)
	before := r.load.excusedFailures.Load()
	r.excused.Store(true)
	r.gone(m)
	must(t, m.Kill())
	killed := time.Now()
	r.edit(t, true)
	r.load.more(t)
	r.excused.Store(false)
	lost := r.load.excusedFailures.Load() - before
	t.Logf("%d creations failed that were in flight, or began before the endpoints had changed", lost)
	if lost > 100 {
		t.Errorf("got %d failed creations, want at most 100", lost)
	}
	for _, other := range r.alive {
		r.decides(t, other, false)
	}
	r.statusRight(t, "the leader was killed", killed)
	r.load.more(t)
	r.start(t)
	r.edit(t, false)
}

// testLeaderCutOff cuts the leader's connection to the API server, which can still call its
// webhook. The leader decides by the policies that it has, and ends when it cannot renew its lease.
// No creation may fail.
func (r *replicas) testLeaderCutOff(t *testing.T) {
	m := r.leader(t)
	for _, other := range r.alive {
		r.decides(t, other, true)
	}
	r.gone(m)
	m.link.Cut()
	cut := time.Now()
	r.edit(t, true)
	for _, other := range r.alive {
		r.decides(t, other, false)
	}
	if v, err := review(t.Context(), m.Manager, webhooks.ValidatePath, r.pinned); err != nil || !v.Allowed {
		t.Errorf("cut off: got %+v, %v; want a decision by the policy before the edit", v, err)
	}
	r.leaves(t, m)
	poll.Await(t, "the replica that is cut off to end", func() error {
		if !m.Ended() {
			return errors.New("got a running process")
		}
		return nil
	})
	t.Logf("the replica ended %s after it was cut off", time.Since(cut).Round(10*time.Millisecond))
	r.statusRight(t, "the leader was cut off", cut)
	m.link.Mend()
	r.load.more(t)
	r.start(t)
	r.edit(t, false)
}

func (r *replicas) testAPIServerRestarted(t *testing.T) {
	r.load.more(t)
	r.excused.Store(true)
	began := time.Now()
	must(t, r.kube.RestartAPIServer(t.Context()))
	back := time.Now()
	t.Logf("the API server was down for %s", back.Sub(began).Round(10*time.Millisecond))
	r.load.more(t)
	r.excused.Store(false)
	r.edit(t, true)
	for _, m := range slices.Clone(r.alive) {
		poll.Await(t, m.name+" to know the edit, or to end", func() error {
			if v, err := review(t.Context(), m.Manager, webhooks.ValidatePath, r.pinned); !m.Ended() &&
				(err != nil || v.Allowed) {
				return fmt.Errorf("got %+v, %w; want a denial", v, err)
			}
			return nil
		})
		if m.Ended() { // a leader that could not renew its lease; a kubelet would restart it
			t.Logf("%s has ended", m.name)
			r.gone(m)
			r.start(t)
			r.decides(t, r.alive[len(r.alive)-1], false)
		}
	}
	r.statusRight(t, "the API server was back", back)
	r.load.more(t)
	r.admitted(t, pod(production, r.signed+":v1"))
	r.denied(t, pod(production, r.half+":v1"), http.StatusForbidden, `role "qa" has not signed`)
}
