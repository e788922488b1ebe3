package e2e

import (
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

// outage is one thing that goes wrong between the operator and a signing server, or at that.
type outage struct {
	// faults are set at the proxy; begin and end are for what is not to be had that way.
	faults     []faultproxy.Fault
	begin, end func(*testing.T, *site)
	// reason is that of Fresh=False, or the other one, and says are texts of which a denial has
	// one.
	reason, or string
	says       []string
	// slow is for answers that come, late: what is new loads while it lasts, and nothing is a
	// fault.
	slow bool
	// published says that only repositories are concerned which were known before, and have been
	// published to since.
	published bool
	// tokens has a Notary server that asks for tokens of a short life.
	tokens bool
	// pause is how long the server wants to be left alone.
	pause time.Duration
	// alone says that a server which is not well is asked for nothing but signs of life, and for
	// one repository.
	alone bool
}

const (
	// patience is for what takes several bounds of the operator: a request's, a pause between two,
	// or three slow round trips.
	patience = 4 * time.Minute
	// turnedAway is the Retry-After of the server that turns requests away, and tokenLife how long
	// tokens live.
	turnedAway = 15 * time.Second
	tokenLife  = 2 * time.Second
	// atOnce bounds the requests to one server, and oneRepository those for a repository that
	// cannot be had.
	atOnce        = 32
	oneRepository = 4
)

// notThere is what a Notary server answers about a file that it does not have.
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
			reason: v1alpha1.ReasonMetadataInvalid, or: v1alpha1.ReasonTooLarge, // it may be longer or not
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

// TestOutages has a server fail in every way at once: for each a namespace, with a policy and a
// trust root of its own, whose way to the Notary server leads through a proxy of its own. None
// admits an unsigned image, none keeps a known one out, and each ends by itself.
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
		if !c.tokens { // whoever publishes needs one too
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

// begin has something go wrong from now on.
func (s *site) begin(t *testing.T, c outage) {
	t.Helper()
	if c.begin != nil {
		c.begin(t, s)
	}
	s.proxy.Set(c.faults...)
	s.proxy.Reset()
}

// testOutage begins when something has gone wrong already.
func (s *site) testOutage(t *testing.T, c outage) {
	begun := time.Now()
	if c.tokens {
		poll.Await(t, "the end of the tokens' life", func() error { return after(begun, tokenLife) })
	}
	s.testDecisions(t, c)
	s.turns(t, c.reason, c.or)
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
	s.turns(t, v1alpha1.ReasonRefreshed)
	t.Logf("Fresh=True %s after the end", since(ended))
}

// testDecisions asks for everything at once: what was known is admitted, and nothing else.
func (s *site) testDecisions(t *testing.T, c outage) {
	t.Helper()
	fault := denial{http.StatusServiceUnavailable, c.says}
	want := map[string]denial{
		s.old + ":v1":       {},
		s.old + ":half":     fault,
		s.old + ":unsigned": fault,
		s.old + ":v2":       fault, // signed since
		s.new + ":half":     fault,
		s.new + ":unsigned": fault,
		s.new + ":v1":       fault,
	}
	if c.published {
		want[s.new+":v1"], want[s.new+":half"], want[s.new+":unsigned"] = denial{}, notSigned, notSigned
	}
	took := s.decide(t, want)
	t.Logf("a known image was admitted after %s; an unknown one answered after %s", round(took[s.old+":v1"]),
		round(took[s.new+":v1"]))
}

// testRequests has many names asked for, and wants the server not to feel it.
func (s *site) testRequests(t *testing.T, c outage) {
	for _, fault := range c.faults {
		if fault.Match != nil || fault.Cut > 0 || fault.Truncate > 0 {
			return // the server is well, so that each repository is asked for
		}
	}
	if c.pause == 0 {
		s.proxy.Reset() // with it, all since the first request counts
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
	t.Logf("%d Pods of unknown repositories within %s: %d requests, %d of them for metadata, %d at once",
		pods, since(begun), len(requests), metadata, s.proxy.Peak())
	if c.alone && metadata > oneRepository {
		t.Errorf("%d requests were made for metadata of a server that is down, want those of one repository in 30 s",
			metadata)
	}
	if s.proxy.Peak() > atOnce {
		t.Errorf("%d requests were under way at once, want %d at most", s.proxy.Peak(), atOnce)
	}
	if c.pause > 0 {
		s.testPauses(t, c.pause, requests)
	}
}

// testPauses wants a server that turned a request away to be asked for nothing before the time it
// gave, and then to be asked. Requests that were under way already are not to be called back.
func (s *site) testPauses(t *testing.T, pause time.Duration, requests []faultproxy.Request) {
	if len(requests) == 0 {
		t.Fatal("the server was not asked for anything")
	}
	turns := []time.Time{requests[0].At}
	for _, r := range requests {
		switch later := r.At.Sub(turns[len(turns)-1]); {
		case later >= pause-time.Second/10: // the clocks are one, the pause begins later
			turns = append(turns, r.At)
		case later > 2*time.Second:
			t.Errorf("%s was asked for %s after the server had turned a request away for %s", r.Path,
				round(later), pause)
		}
	}
	if len(turns) < 2 {
		t.Errorf("in %s the server was asked once", since(turns[0]))
	}
}

// testSlow has everything that is signed admitted in the end while the server goes on being slow. A
// denial that stands needs a look at the server within the deadline.
func (s *site) testSlow(t *testing.T, delay time.Duration) {
	begun := time.Now()
	must(t, s.admits(t, s.old+":v1"))
	t.Logf("a known image was admitted after %s", since(begun))
	begun = time.Now()
	s.loads(t)
	t.Logf("signed images of a repository unknown before, and since, are admitted %s after they were first asked for",
		since(begun))
	if delay < 5*time.Second {
		s.judgesAll(t)
	}
	s.decide(t, map[string]denial{s.old + ":v1": {}, s.new + ":v1": {}})
	s.stays(t)
}

// testMadeUpNames is against who names repositories at which the server fails, so that it is taken
// to be down.
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
	s.turns(t, v1alpha1.ReasonServerError)
	s.proxy.Set()
	s.patiently(t, "a verdict on a made-up name", func() error { return s.judges(t, registry+"/acme/made-up-0:v1") })
	s.turns(t, v1alpha1.ReasonRefreshed)
}
