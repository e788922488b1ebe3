package publication

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const inGrace = "2 repositories have expired and are in grace (spec.expiredGrace), the first of them until " +
	"2026-03-02T12:00:00Z"

// A Notary server renews its timestamp only once it has expired. So the condition warns about it
// only while the server fails.
func TestExpiring(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration, file string) store.Expiry {
		return store.Expiry{NotAfter: now.Add(d), Repository: "registry.example.com/acme/app", File: file}
	}
	fault := trust.NewFault(v1alpha1.ReasonUnreachable, "no answer")
	soon, year := 71*time.Hour, 365*24*time.Hour
	tests := map[string]struct {
		held   store.Status
		reason string
		says   []string
		turns  time.Duration // the most that untilChange may return
	}{
		"nothing tracked": {store.Status{}, v1alpha1.ReasonNothingExpiresSoon, nil, 24 * time.Hour},
		"all far away": {
			store.Status{Signed: at(year, "targets.json"), Unattended: at(year, "timestamp.json")},
			v1alpha1.ReasonNothingExpiresSoon, nil, 24 * time.Hour,
		},
		"just before the warning": {
			store.Status{Signed: at(72*time.Hour+1, "targets.json")}, v1alpha1.ReasonNothingExpiresSoon, nil,
			time.Second + 1,
		},
		"at the warning": {
			store.Status{Signed: at(72*time.Hour, "targets.json")}, v1alpha1.ReasonExpiresSoon,
			[]string{
				"registry.example.com/acme/app: targets.json expires at 2026-03-04T12:00:00Z",
				"its signer must sign again",
			},
			24 * time.Hour,
		},
		"a delegation": {
			store.Status{Signed: at(soon, "targets/qa.json")}, v1alpha1.ReasonExpiresSoon,
			[]string{"targets/qa.json expires at"}, 24 * time.Hour,
		},
		"the timestamp of a server that is well": {store.Status{
			Signed: at(year, "targets.json"), Unattended: at(soon, "timestamp.json"),
		},
			v1alpha1.ReasonNothingExpiresSoon, nil, 24 * time.Hour},
		"the timestamp of one that is not": {store.Status{
			Server: fault, Signed: at(year, "targets.json"), Unattended: at(soon, "timestamp.json"),
		},
			v1alpha1.ReasonExpiresSoon, []string{"timestamp.json expires at", "condition Fresh"}, 24 * time.Hour},
		"the timestamp of a repository that fails": {store.Status{
			Failing: 1, Signed: at(year, "targets.json"), Unattended: at(soon, "timestamp.json"),
		},
			v1alpha1.ReasonExpiresSoon, []string{"timestamp.json expires at"}, 24 * time.Hour},
		"the timestamp of a trusted root that cannot be fetched": {store.Status{
			Base: &store.BaseStatus{Loaded: true, Fault: fault}, Signed: at(year, "targets.json"),
			Unattended: at(soon, "timestamp.json"),
		},
			v1alpha1.ReasonExpiresSoon, []string{"timestamp.json expires at"}, 24 * time.Hour},
		"the timestamp of a trusted root that is fetched": {store.Status{
			Base: &store.BaseStatus{Loaded: true}, Signed: at(year, "targets.json"),
			Unattended: at(soon, "timestamp.json"),
		},
			v1alpha1.ReasonNothingExpiresSoon, nil, 24 * time.Hour},
		"what people sign comes first": {store.Status{
			Failing: 1, Signed: at(time.Hour, "targets.json"), Unattended: at(soon, "timestamp.json"),
		},
			v1alpha1.ReasonExpiresSoon, []string{"targets.json expires at"}, time.Hour + time.Second},
		"expired": {
			store.Status{Signed: at(-time.Hour, "targets/qa.json")}, v1alpha1.ReasonMetadataExpired,
			[]string{"targets/qa.json expired at 2026-03-01T11:00:00Z"}, 24 * time.Hour,
		},
		"expiring right now": {
			store.Status{Signed: at(0, "targets.json")}, v1alpha1.ReasonMetadataExpired, []string{"expired at"},
			24 * time.Hour,
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got := expiring(root(), c.held, now, 72*time.Hour)
			if got.Reason != c.reason ||
				(got.Status == metav1.ConditionTrue) != (c.reason != v1alpha1.ReasonNothingExpiresSoon) {
				t.Errorf("%s, reason %s: %s", got.Status, got.Reason, got.Message)
			}
			for _, text := range c.says {
				if !strings.Contains(got.Message, text) {
					t.Errorf("message %q does not say %q", got.Message, text)
				}
			}
			if after := untilChange(c.held, now, 72*time.Hour); after > c.turns || after < time.Second {
				t.Errorf("untilChange = %s, want at most %s", after, c.turns)
			}
		})
	}
}

// The condition Fresh is False while the trusted root cannot be fetched, and says what that means.
func TestFreshOfTheTrustedRoot(t *testing.T) {
	fault := trust.NewFault(v1alpha1.ReasonUnreachable, "https://tuf.example.com: no answer")
	until := time.Date(2026, 3, 8, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		held   store.Status
		status metav1.ConditionStatus
		reason string
		says   string
	}{
		"being fetched": {
			store.Status{Base: &store.BaseStatus{}}, metav1.ConditionUnknown, v1alpha1.ReasonNotAskedYet,
			"the trusted root is being fetched",
		},
		"never fetched": {
			store.Status{Base: &store.BaseStatus{Fault: fault}}, metav1.ConditionFalse, v1alpha1.ReasonUnreachable,
			"the trusted root could not be fetched: https://tuf.example.com: no answer; signatures that need it cannot " +
				"be checked until it is fetched",
		},
		"not refreshed": {
			store.Status{Probed: true, Tracked: 3, Base: &store.BaseStatus{Loaded: true, Expires: until, Fault: fault}},
			metav1.ConditionFalse, v1alpha1.ReasonUnreachable,
			"no answer; the one that was verified before stays in use until 2026-03-08T12:00:00Z",
		},
		"fetched, and no image yet": {
			store.Status{Base: &store.BaseStatus{Loaded: true}}, metav1.ConditionTrue, v1alpha1.ReasonNothingTracked,
			"no image under this trust root",
		},
		"fetched, and images": {
			store.Status{Probed: true, Tracked: 3, Base: &store.BaseStatus{Loaded: true}}, metav1.ConditionTrue,
			v1alpha1.ReasonRefreshed, "up to date: 3",
		},
		"fetched, and a registry fails": {
			store.Status{Server: fault, Base: &store.BaseStatus{Loaded: true}}, metav1.ConditionFalse,
			v1alpha1.ReasonUnreachable, "no answer",
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got := fresh(root(), &store.Root{}, c.held)
			if got.Status != c.status || got.Reason != c.reason || !strings.Contains(got.Message, c.says) {
				t.Errorf("got %s, reason %s: %s; want %s, reason %s: %s", got.Status, got.Reason, got.Message, c.status,
					c.reason, c.says)
			}
		})
	}
}

// Of several registries, the condition Fresh names those that fail.
func TestFreshNamesTheHostsThatFail(t *testing.T) {
	at := func(host, reason string) store.HostFault {
		return store.HostFault{Host: host, Fault: trust.NewFault(reason, "%s: no answer", host)}
	}
	one, two := at("a.example.com", v1alpha1.ReasonUnreachable), at("b.example.com:5000", v1alpha1.ReasonTimeout)
	many := store.Status{Probed: true, Server: one.Fault, Hosts: 50}
	for i := range 12 {
		many.HostFaults = append(many.HostFaults, at(fmt.Sprintf("%02d.example.com", i), v1alpha1.ReasonTimeout))
	}
	tests := map[string]struct {
		held store.Status
		says string // empty: no list of hosts
	}{
		"a probe failed": {
			store.Status{Probed: true, Server: one.Fault, Hosts: 3, HostFaults: []store.HostFault{one, two}},
			"a.example.com: no answer; of 3 hosts, 2 fail: a.example.com (Unreachable), b.example.com:5000 (Timeout)",
		},
		"fetches failed": {
			store.Status{
				Probed: true, Tracked: 7, Failing: 2, Hosts: 2, HostFaults: []store.HostFault{two},
				Faults: []store.RepositoryFault{{Repository: "b.example.com:5000/app", Fault: two.Fault}},
			},
			"b.example.com:5000: no answer; of 2 hosts, 1 fail: b.example.com:5000 (Timeout)",
		},
		"a single host": {
			store.Status{Probed: true, Server: one.Fault, Hosts: 1, HostFaults: []store.HostFault{one}}, "",
		},
		"many": {many, "of 50 hosts, 12 fail: 00.example.com (Timeout), 01.example.com (Timeout), "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := fresh(&v1alpha1.TrustRoot{}, &store.Root{}, test.held)
			if got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, test.says) {
				t.Errorf("got %s %q, want False and %q in it", got.Status, got.Message, test.says)
			}
			if listed := strings.Contains(got.Message, " hosts, "); listed != (test.says != "") {
				t.Errorf("got %q, want a list of hosts: %t", got.Message, test.says != "")
			}
		})
	}
	if got := fresh(&v1alpha1.TrustRoot{}, &store.Root{}, many).Message; !strings.HasSuffix(got, " and 2 more") {
		t.Errorf("got %q, want ten hosts and the number of the others", got)
	}
}

func TestFreshSaysWhenTheGraceEnds(t *testing.T) {
	fault := &trust.Fault{Reason: v1alpha1.ReasonUnreachable, Err: errors.New("no answer")}
	held := store.Status{
		Probed: true, Tracked: 3, Server: fault, InGrace: 2, GraceEnds: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC),
	}
	got := fresh(root(), &store.Root{}, held)
	if got.Status != metav1.ConditionFalse || !strings.Contains(got.Message, inGrace) {
		t.Errorf("%s: %s", got.Status, got.Message)
	}
}

// Repositories that are not known to be signed are counted in the message, and change nothing else.
func TestFreshSaysWhatDoesNotCount(t *testing.T) {
	const says = "3 repositories that are not known to be signed could not be checked"
	held := store.Status{Probed: true, Tracked: 5, Unknown: 7, UnknownFailing: 3}
	c := fresh(&v1alpha1.TrustRoot{}, &store.Root{}, held)
	if c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonRefreshed || !strings.Contains(c.Message, says) {
		t.Errorf("got %+v, want it True, with %q", c, says)
	}
	held.Failing = 1
	held.Faults = []store.RepositoryFault{{Repository: "r", Fault: trust.NewFault(v1alpha1.ReasonTimeout, "no answer")}}
	c = fresh(&v1alpha1.TrustRoot{}, &store.Root{}, held)
	if c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "1 of 5") ||
		!strings.Contains(c.Message, says) {
		t.Errorf("got %+v, want it False, with 1 of 5, and %q", c, says)
	}
}
