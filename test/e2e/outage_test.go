package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// outage is a fault of a signing server, or of the network to it.
type outage struct {
	// faults are set at the proxy. begin and end are for what the proxy cannot do.
	faults     []faultproxy.Fault
	begin, end func(*testing.T, *site)
	// reason is the reason of Fresh=False; or is a second one that is also right. A denial contains
	// one of says.
	reason, or string
	says       []string
	// slow is for late responses. The manager must still fetch new repositories, and report no
	// fault.
	slow bool
	// published limits the outage to known repositories with a publication since.
	published bool
	// tokens selects the Notary server that requires tokens, which expire soon.
	tokens bool
	// pause is the time that the server tells clients to wait.
	pause time.Duration
	// alone says that the manager must send nothing but probes to the server, and requests for one
	// repository.
	alone bool
}

const (
	// patience is longer than several timeouts of the operator, its pauses between requests, or
	// three slow round trips.
	patience = 4 * time.Minute
	// turnedAway is the Retry-After of the server that responds with status 429. tokenLife is the
	// lifetime of tokens.
	turnedAway = 15 * time.Second
	tokenLife  = 2 * time.Second
	// atOnce bounds the requests in flight to one server, and oneRepository the requests for a
	// repository that cannot be fetched.
	atOnce        = 32
	oneRepository = 4
)

// notThere is the body of a Notary server's response for a file that it does not have.
const notThere = `{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist.","detail":null}]}`

func outages() map[string]outage {
	closed := []string{"closed the connection before its answer was complete"}
	return map[string]outage{
		"refused": {
			begin:  func(_ *testing.T, s *site) { s.proxy.Disconnect() },
			end:    func(t *testing.T, s *site) { must(t, s.proxy.Reconnect()) },
			reason: v1alpha1.ReasonUnreachable, says: []string{"the connection was refused"},
		},
		"dead": {
			faults: []faultproxy.Fault{{Drop: true}}, reason: v1alpha1.ReasonUnreachable, says: closed, alone: true,
		},
		"hangs": {
			faults: []faultproxy.Fault{{Hang: true}}, reason: v1alpha1.ReasonTimeout,
			says: []string{"not loaded yet", "waiting for", "no full answer in time"},
		},

		"slow-100ms": {faults: []faultproxy.Fault{{Delay: 100 * time.Millisecond}}, slow: true},
		"slow-2s":    {faults: []faultproxy.Fault{{Delay: 2 * time.Second}}, slow: true},
		"slow-30s":   {faults: []faultproxy.Fault{{Delay: 30 * time.Second}}, slow: true},

		"turned-away": {
			faults: []faultproxy.Fault{
				{Status: http.StatusTooManyRequests, RetryAfter: strconv.Itoa(int(turnedAway.Seconds()))},
			},
			reason: v1alpha1.ReasonServerError, says: []string{"status 429", "Retry-After"}, pause: turnedAway,
		},
		"unavailable": {
			faults: []faultproxy.Fault{{Status: http.StatusServiceUnavailable}}, reason: v1alpha1.ReasonServerError,
			says: []string{"status 503"}, alone: true,
		},
		"broken": {
			faults: []faultproxy.Fault{{Status: http.StatusInternalServerError}}, reason: v1alpha1.ReasonServerError,
			says: []string{"status 500"}, alone: true,
		},

		"tokens": {
			begin: func(_ *testing.T, s *site) {
				s.at.notary.SetTokenFaults(faultproxy.Fault{Status: http.StatusServiceUnavailable})
			},
			end:    func(_ *testing.T, s *site) { s.at.notary.SetTokenFaults() },
			reason: v1alpha1.ReasonServerError, says: []string{"token service"}, tokens: true,
		},
		"certificate-expired": {
			begin:  func(t *testing.T, s *site) { s.serve(t, s.proxy.CA.IssueExpired) },
			end:    func(t *testing.T, s *site) { s.serve(t, s.proxy.CA.Issue) },
			reason: v1alpha1.ReasonTLSNotTrusted, says: []string{"the certificate has expired"},
		},
		"certificate-of-another-ca": {
			begin:  func(t *testing.T, s *site) { s.serve(t, s.at.notary.CA.Issue) },
			end:    func(t *testing.T, s *site) { s.serve(t, s.proxy.CA.Issue) },
			reason: v1alpha1.ReasonTLSNotTrusted, says: []string{"signed by an unknown authority"},
		},

		"snapshot-missing": {
			faults: []faultproxy.Fault{
				{Match: notaryserver.File("snapshot"), Status: http.StatusNotFound, Body: notThere},
			},
			reason: v1alpha1.ReasonMetadataMissing, says: []string{"the server has no snapshot"},
		},
		"snapshot-old": {
			faults: []faultproxy.Fault{{Match: notaryserver.File("snapshot"), Old: true}},
			reason: v1alpha1.ReasonMetadataInvalid, or: v1alpha1.ReasonTooLarge, // the old file may be longer
			says: []string{"snapshot"}, published: true,
		},
		"delegation-truncated": {
			faults: []faultproxy.Fault{{Match: notaryserver.File("targets/qa"), Truncate: 100}},
			reason: v1alpha1.ReasonMetadataInvalid, says: []string{"targets/qa"},
		},
		"delegation-corrupt": {
			faults: []faultproxy.Fault{{Match: notaryserver.File("targets/qa"), Corrupt: true}},
			reason: v1alpha1.ReasonMetadataInvalid, says: []string{"targets/qa"},
		},
		"timestamp-corrupt": {
			faults: []faultproxy.Fault{{Match: notaryserver.File("timestamp"), Corrupt: true}},
			reason: v1alpha1.ReasonMetadataInvalid, says: []string{"timestamp"},
		},
		"cut": {faults: []faultproxy.Fault{{Cut: 60}}, reason: v1alpha1.ReasonUnreachable, says: closed},
		"truncated": {
			faults: []faultproxy.Fault{{Truncate: 60}}, reason: v1alpha1.ReasonMetadataInvalid,
			says: []string{"timestamp", "root"},
		},
	}
}

// TestOutages runs all outages at the same time. Each has its own namespace, policy, trust root,
// and proxy in front of the Notary server. During an outage unsigned images must be denied, and
// known images admitted. Afterwards the manager must recover by itself.
func TestOutages(t *testing.T) {
	t.Parallel()
	o := newOutageBed(t)
	sites := map[string]*site{}
	cases := outages()
	for name, c := range cases {
		sites[name] = o.site(t, name, c.tokens)
	}
	flood := o.site(t, "made-up-names", false)
	for _, s := range sites {
		s.known(t)
	}
	flood.known(t)

	var under sync.WaitGroup
	run := func(name string, test func(*testing.T)) { under.Go(func() { t.Run(name, test) }) }
	for name, c := range cases {
		if !c.tokens { // publish needs tokens too
			sites[name].begin(t, c)
		}
	}
	o.publish(t)
	sites["tokens"].begin(t, cases["tokens"])
	for name, c := range cases {
		run(name, func(t *testing.T) {
			if c.slow {
				sites[name].testSlow(t, c.faults[0].Delay)
				return
			}
			sites[name].testOutage(t, c)
		})
	}
	run("made-up-names", flood.testMadeUpNames)
	under.Wait()
}

// begin starts the outage.
func (s *site) begin(t *testing.T, c outage) {
	t.Helper()
	if c.begin != nil {
		c.begin(t, s)
	}
	s.proxy.Set(c.faults...)
	s.proxy.Reset()
}

// testOutage tests a site whose outage has begun, and then ends the outage.
func (s *site) testOutage(t *testing.T, c outage) {
	begun := time.Now()
	if c.tokens {
		poll.Await(t, "the tokens to expire", func() error { return after(begun, tokenLife) })
	}
	s.testDecisions(t, c)
	s.awaitFresh(t, c.reason, c.or)
	t.Logf("Fresh=False with %s after at most %s", c.reason, since(begun))
	s.testDecisions(t, c)
	s.testRequests(t, c)

	ended := time.Now()
	s.proxy.Set()
	if c.end != nil {
		c.end(t, s)
	}
	s.loads(t)
	t.Logf("signed images of a repository unknown before, and since, are admitted %s after the end", since(ended))
	s.judgesAll(t)
	s.awaitFresh(t, v1alpha1.ReasonRefreshed)
	t.Logf("Fresh=True %s after the end", since(ended))
}

// testDecisions creates Pods of all images at once: only known images are admitted.
func (s *site) testDecisions(t *testing.T, c outage) {
	t.Helper()
	fault := denial{http.StatusServiceUnavailable, c.says}
	want := map[string]denial{
		s.old + ":v1":       {},
		s.old + ":half":     fault,
		s.old + ":unsigned": fault,
		s.old + ":v2":       fault, // signed since the outage began
		s.new + ":half":     fault,
		s.new + ":unsigned": fault,
		s.new + ":v1":       fault,
	}
	if c.published {
		want[s.new+":v1"], want[s.new+":half"], want[s.new+":unsigned"] = denial{}, notSigned, notSigned
	}
	took := s.decide(t, want)
	t.Logf("a known image was admitted after %s, an unknown one denied after %s", round(took[s.old+":v1"]),
		round(took[s.new+":v1"]))
}

// testRequests creates Pods of many made-up repositories. The server must get few requests.
func (s *site) testRequests(t *testing.T, c outage) {
	for _, fault := range c.faults {
		if fault.Match != nil || fault.Cut > 0 || fault.Truncate > 0 {
			return // the server works, so the manager fetches every repository
		}
	}
	if c.pause == 0 {
		s.proxy.Reset() // with a pause, requests count since the outage began
	}
	begun, pods := time.Now(), 0
	for ; time.Since(begun) < max(8*time.Second, c.pause); pods += madeUp {
		s.demand(t)
	}
	requests, metadata := s.proxy.Requests(), 0
	for _, r := range requests {
		if strings.Contains(r.Path, "/_trust/") {
			metadata++
		}
	}
	t.Logf("%d Pods of unknown repositories within %s: %d requests, %d of them for metadata, at most %d in flight",
		pods, since(begun), len(requests), metadata, s.proxy.Peak())
	if c.alone && metadata > oneRepository {
		t.Errorf("got %d metadata requests to a server that is down, want at most %d: one repository in 30 s", metadata,
			oneRepository)
	}
	if s.proxy.Peak() > atOnce {
		t.Errorf("got %d requests in flight, want at most %d", s.proxy.Peak(), atOnce)
	}
	if c.pause > 0 {
		s.testPauses(t, c.pause, requests)
	}
}

// testPauses checks that the manager waits as long as the server's Retry-After says, and then sends
// requests again. Requests that are in flight when the pause begins do not count.
func (s *site) testPauses(t *testing.T, pause time.Duration, requests []faultproxy.Request) {
	if len(requests) == 0 {
		t.Fatal("got no request")
	}
	bursts := []time.Time{requests[0].At}
	for _, r := range requests {
		switch later := r.At.Sub(bursts[len(bursts)-1]); {
		case later >= pause-time.Second/10: // the manager's pause begins after the request arrives
			bursts = append(bursts, r.At)
		case later > 2*time.Second:
			t.Errorf("got a request for %s %s after the server required a pause of %s", r.Path, round(later), pause)
		}
	}
	if len(bursts) < 2 {
		t.Errorf("got no request after the pause, within %s", since(bursts[0]))
	}
}

// testSlow checks that all signed images are admitted in the end, while the server stays slow. A
// verdict that an image is not signed needs a fetch within the deadline, so it is checked only with
// a short delay.
func (s *site) testSlow(t *testing.T, delay time.Duration) {
	begun := time.Now()
	must(t, s.admits(t, s.old+":v1"))
	t.Logf("a known image was admitted after %s", since(begun))
	begun = time.Now()
	s.loads(t)
	t.Logf("signed images of a repository unknown before, and since, are admitted %s after the first request",
		since(begun))
	if delay < 5*time.Second {
		s.judgesAll(t)
	}
	s.decide(t, map[string]denial{s.old + ":v1": {}, s.new + ":v1": {}})
	s.stayedFresh(t)
}

// testMadeUpNames checks that an attacker who requests repositories for which the server fails
// cannot make the manager treat the server as down for other repositories, nor make the trust root
// report a fault.
func (s *site) testMadeUpNames(t *testing.T) {
	s.proxy.Set(faultproxy.Fault{
		Match:  func(path string) bool { return strings.Contains(path, "/made-up-") },
		Status: http.StatusInternalServerError,
	})
	for range 3 {
		s.demand(t)
		s.decide(t, map[string]denial{
			s.old + ":v1": {}, s.old + ":v2": {}, s.old + ":half": notSigned,
			s.new + ":v1": {}, s.new + ":half": notSigned, s.new + ":unsigned": notSigned,
		})
	}
	counted := fmt.Sprintf("; %d repositories that are not known to be signed could not be checked", madeUp)
	s.patiently(t, "the count of made-up repositories", func() error {
		if c, err := s.fresh(t); err != nil || !strings.Contains(c.Message, counted) {
			return fmt.Errorf("got Fresh %+v (%w), want %q in its message", c, err, counted)
		}
		return nil
	})
	s.stayedFresh(t)
	s.proxy.Set()
	s.patiently(t, "a verdict on a made-up name", func() error { return s.judges(t, registry+"/acme/made-up-0:v1") })
	s.stayedFresh(t)
}
