package registries

import (
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/test/gate"
)

// outage is a fault of a registry, of its token service or its storage, or of the network to them.
type outage struct {
	// faults are set at the proxy. begin and end are for what it cannot do.
	faults     func(s *site) []faultproxy.Fault
	begin, end func(t *testing.T, s *site)
	// api selects the registry with the referrers API. own runs a registry for this outage alone.
	api, own bool
	// timeout bounds each request to the registry; 0: the default.
	timeout time.Duration
	// pauses says that requests wait for the end of short pauses, so that the clock must move on.
	pauses bool

	// unknown and unknownDigest are the decisions about a tag and a digest of which nothing is
	// known, stale about a tag past its interval, and half about an unsigned tag within it. A tag
	// within its interval and a known digest are always admitted.
	unknown, unknownDigest, stale, half gate.Verdict
	// A denial says one of these.
	says []string
	// reason is that of Fresh=False; empty: the status shows no fault.
	reason string
}

// always are faults that apply to each request of some kind.
func always(match func(path string) bool, faults ...faultproxy.Fault) func(*site) []faultproxy.Fault {
	return func(*site) []faultproxy.Fault {
		for i := range faults {
			faults[i].Match = match
		}
		return faults
	}
}

// The kinds of request, by path.
var (
	everything func(path string) bool
	tags       = func(path string) bool {
		return strings.Contains(path, "/manifests/") && !strings.Contains(path, "sha256")
	}
	referrers = func(path string) bool {
		return strings.Contains(path, "/referrers/") || strings.Contains(path, "/manifests/sha256-")
	}
	manifests = func(path string) bool { return strings.Contains(path, "/manifests/sha256:") }
	blobs     = func(path string) bool { return strings.Contains(path, "/blobs/") }
)

const (
	gone     = `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`
	refused  = `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`
	loginURL = "<!DOCTYPE html><html><title>Sign in</title></html>"
)

// status answers with a status, a body and header fields in pairs.
func status(code int, body string, header ...string) faultproxy.Fault {
	f := faultproxy.Fault{Status: code, Body: body, Header: map[string]string{"Content-Type": "application/json"}}
	for i := 0; i < len(header); i += 2 {
		f.Header[header[i]] = header[i+1]
	}
	return f
}

// outages are the faults. docs/reliability.md has a row for each.
func outages() map[string]outage {
	all := map[string]outage{}
	for _, some := range []map[string]outage{network(), statuses(), bodies(), lists(), redirects(), tokens()} {
		for name, o := range some {
			all[name] = o
		}
	}
	return all
}

// network are faults of the network to the registry.
func network() map[string]outage {
	closed := []string{"closed the connection before its answer was complete"}
	return map[string]outage{
		"refused": {
			begin: func(_ *testing.T, s *site) { s.proxy.Disconnect() },
			end: func(t *testing.T, s *site) {
				if err := s.proxy.Reconnect(); err != nil {
					t.Fatal(err)
				}
			},
			stale: warned, says: []string{"the connection was refused"}, reason: v1alpha1.ReasonUnreachable,
		},
		"dead": {
			faults: always(everything, faultproxy.Fault{Drop: true}),
			stale:  warned, says: closed, reason: v1alpha1.ReasonUnreachable,
		},
		"cut": {
			faults: always(everything, faultproxy.Fault{Cut: 20}),
			stale:  admitted, says: closed, reason: v1alpha1.ReasonUnreachable,
		},
		"hangs": {
			faults: always(everything, faultproxy.Fault{Hang: true}), timeout: hung,
			stale: warned, says: []string{"no full answer in time"}, reason: v1alpha1.ReasonTimeout,
		},
		"certificate-expired": {
			begin: func(t *testing.T, s *site) { s.serve(t, s.proxy.CA.IssueExpired) },
			end:   func(t *testing.T, s *site) { s.serve(t, s.proxy.CA.Issue) },
			stale: couldNotCheck, says: []string{"the certificate has expired"}, reason: v1alpha1.ReasonTLSNotTrusted,
		},
		"certificate-of-another-ca": {
			begin: func(t *testing.T, s *site) {
				other, err := tlstest.NewCA("another test CA")
				if err != nil {
					t.Fatal(err)
				}
				s.serve(t, other.Issue)
			},
			end:   func(t *testing.T, s *site) { s.serve(t, s.proxy.CA.Issue) },
			stale: couldNotCheck, says: []string{"signed by an unknown authority"},
			reason: v1alpha1.ReasonTLSNotTrusted,
		},
	}
}

// serve makes the proxy serve another certificate.
func (s *site) serve(t *testing.T, issue func(pkix.Name, ...string) (*tlstest.Certificate, error)) {
	t.Helper()
	certificate, err := issue(pkix.Name{CommonName: "registry"})
	if err != nil {
		t.Fatal(err)
	}
	s.proxy.Serve(certificate)
}

// statuses are answers with a status of failure.
func statuses() map[string]outage {
	// A request waits for the end of a pause of up to 5 s.
	limited := []string{"status 429", "Retry-After"}
	return map[string]outage{
		"401": {
			faults: always(everything,
				status(http.StatusUnauthorized, refused, "WWW-Authenticate", `Basic realm="registry"`)),
			says: []string{"access was refused (status 401)"}, reason: v1alpha1.ReasonUnauthorized,
		},
		"403": {
			faults: always(everything, status(http.StatusForbidden, refused)),
			says:   []string{"access was refused (status 403)"}, reason: v1alpha1.ReasonUnauthorized,
		},
		"404-of-the-protocol": { // everything was deleted
			faults:  always(everything, status(http.StatusNotFound, gone)),
			unknown: denied, unknownDigest: denied, stale: denied, half: denied, says: []string{"has not signed"},
		},
		"404": {
			faults: always(everything, status(http.StatusNotFound, "404 page not found", "Content-Type", "text/plain")),
			says:   []string{"answered 404 without the error code"}, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"429": {
			faults: always(everything, status(http.StatusTooManyRequests, "", "Retry-After", "6")),
			stale:  warned, says: limited, reason: v1alpha1.ReasonServerError,
		},
		"429-without-time": { // a pause of 1 s each time, for which requests wait
			faults: always(everything, status(http.StatusTooManyRequests, "")), pauses: true,
			stale: warned, says: append(limited, "no answer within 2s"), reason: v1alpha1.ReasonServerError,
		},
		"429-retry-after": {
			faults: always(everything, status(http.StatusTooManyRequests, "", "Retry-After", "15")),
			stale:  warned, says: limited, reason: v1alpha1.ReasonServerError,
		},
		"500": {
			faults: always(everything, status(http.StatusInternalServerError, "")),
			stale:  warned, says: []string{"status 500"}, reason: v1alpha1.ReasonServerError,
		},
		"503": {
			faults: always(everything, status(http.StatusServiceUnavailable, "")),
			stale:  warned, says: []string{"status 503"}, reason: v1alpha1.ReasonServerError,
		},
		"503-retry-after": {
			faults: always(everything, status(http.StatusServiceUnavailable, "", "Retry-After", "15")),
			stale:  warned, says: []string{"status 503", "Retry-After"}, reason: v1alpha1.ReasonServerError,
		},
		"500-tags": {
			faults: always(tags, status(http.StatusInternalServerError, "")), unknownDigest: admitted,
			stale: warned, says: []string{"status 500"}, reason: v1alpha1.ReasonServerError,
		},
		"redirect-tags-inside": {
			faults: always(tags, status(http.StatusTemporaryRedirect, "", "Location", "https://169.254.169.254/v1")),
			says:   []string{"to which Countersign never connects"}, unknownDigest: admitted,
			reason: v1alpha1.ReasonAddressRefused,
		},
		"500-referrers": {
			faults: always(referrers, status(http.StatusInternalServerError, "")),
			stale:  admitted, says: []string{"status 500"}, reason: v1alpha1.ReasonServerError,
		},
	}
}

// bodies are answers whose bodies are not what the registry has.
func bodies() map[string]outage {
	hash := []string{"which is not its digest"}
	return map[string]outage{
		"login-page": {
			faults: always(everything, status(http.StatusOK, loginURL, "Content-Type", "text/html")),
			says:   []string{"answered with a web page"}, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"truncated": {
			faults: always(everything, faultproxy.Fault{Truncate: 20}),
			stale:  admitted, says: hash, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"truncated-tag": { // by a registry that names no digest
			faults: always(tags,
				faultproxy.Fault{Method: http.MethodHead, Status: http.StatusMethodNotAllowed},
				faultproxy.Fault{Truncate: 20, Header: map[string]string{"Docker-Content-Digest": ""}}),
			unknownDigest: admitted, says: []string{"is no JSON"}, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"endless": {
			faults: always(everything, faultproxy.Fault{Endless: true}),
			says:   []string{"bytes that it may have"}, reason: v1alpha1.ReasonTooLarge,
		},
		"wrong-hash-tag": {
			faults: always(tags, faultproxy.Fault{Method: http.MethodHead, Status: http.StatusMethodNotAllowed},
				faultproxy.Fault{Corrupt: true}),
			unknownDigest: admitted, says: hash, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"wrong-hash-referrers": {
			faults: always(referrers, faultproxy.Fault{Corrupt: true}),
			stale:  admitted, says: hash, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"wrong-hash-signature": {
			faults: always(manifests, faultproxy.Fault{Corrupt: true}),
			stale:  admitted, says: hash, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"wrong-hash-blob": {
			faults: always(blobs, status(http.StatusOK, "another role")),
			stale:  admitted, says: hash, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
	}
}

// lists are faults of the list of referrers.
func lists() map[string]outage {
	var many strings.Builder
	for i := range 1100 {
		fmt.Fprintf(&many,
			`,{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%064x","size":2}`, i)
	}
	index := func(manifests string) faultproxy.Fault {
		return status(http.StatusOK, `{"schemaVersion":2,"manifests":[`+strings.TrimPrefix(manifests, ",")+`]}`,
			"Content-Type", "application/vnd.oci.image.index.v1+json")
	}
	link := func(to string) faultproxy.Fault {
		return faultproxy.Fault{Header: map[string]string{"Link": "<" + to + `>; rel="next"`}}
	}
	elsewhere := []string{"is not in the list of this repository"}
	all := map[string]outage{
		"index-of-many": {
			faults: always(referrers, index(many.String())), says: []string{"more than 1024 manifests refer"},
			reason: v1alpha1.ReasonTooLarge,
		},
		"index-huge": {
			faults: always(referrers, index(strings.Repeat(",{}", 1<<20))),
			says:   []string{"has more than 65536 values"},
			reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"next-elsewhere": {
			faults: always(referrers, link("https://169.254.169.254/v2/acme/app/referrers/next")), says: elsewhere,
			reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"next-of-another-repository": {
			faults: always(referrers, link("/v2/acme/other/referrers/next")), says: elsewhere,
			reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"next-loop": {
			faults: func(s *site) []faultproxy.Fault {
				return always(referrers, link("/v2/"+path+"/referrers/"+s.digests["new"]))(s)
			},
			says: []string{"more than 32 pages", "more than 1024"}, reason: v1alpha1.ReasonTooLarge,
		},
	}
	for name, o := range all {
		o.api, o.stale = true, admitted
		all[name] = o
	}
	return all
}

// redirects are redirects of blobs to what the registry does not use for storage.
func redirects() map[string]outage {
	to := func(location string) func(*site) []faultproxy.Fault {
		return always(blobs, status(http.StatusTemporaryRedirect, "", "Location", location))
	}
	all := map[string]outage{
		"redirect-inside": {
			faults: to("https://169.254.169.254/blob"), says: []string{"to which Countersign never connects"},
			reason: v1alpha1.ReasonAddressRefused,
		},
		"redirect-http": {
			faults: to("http://storage.example.com/blob"), says: []string{"is not encrypted"},
			reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"redirect-with-credentials": {
			faults: to("https://user:" + password + "@storage.example.com/blob"),
			says:   []string{"it carries credentials"},
			reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"redirect-loop": {
			faults: func(s *site) []faultproxy.Fault {
				return to(s.proxy.URL + "/v2/" + path + "/blobs/loop")(s)
			},
			says: []string{"too many redirects"}, reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"storage-refused": {
			faults: func(s *site) []faultproxy.Fault { return to("https://" + closedPort + "/blob")(s) },
			says:   []string{"the connection was refused"}, reason: v1alpha1.ReasonUnreachable,
		},
		"storage-of-another-ca": {
			faults: func(s *site) []faultproxy.Fault { // a listed registry, by a host that is not listed
				return to(strings.Replace(s.proxy.URL, "localhost", "127.0.0.1", 1) + "/blob")(s)
			},
			says: []string{"signed by an unknown authority"}, reason: v1alpha1.ReasonTLSNotTrusted,
		},
	}
	for name, o := range all {
		o.stale = admitted
		all[name] = o
	}
	return all
}

// closedPort is an address on which nothing listens: tcpmux is not used.
const closedPort = "localhost:1"

// tokens are faults of the token service, once a token has expired.
func tokens() map[string]outage {
	expired := func(s *site) []faultproxy.Fault {
		return always(everything, status(http.StatusUnauthorized, refused, "WWW-Authenticate",
			fmt.Sprintf(`Bearer realm=%q,service="registry"`, s.tokens.Realm())))(s)
	}
	fails := func(fault faultproxy.Fault) func(*testing.T, *site) {
		return func(_ *testing.T, s *site) { s.tokens.SetFaults(fault) }
	}
	all := map[string]outage{
		"token-service-dead": {
			begin: fails(faultproxy.Fault{Drop: true}), stale: warned, reason: v1alpha1.ReasonUnreachable,
		},
		"token-service-503": {
			begin: fails(status(http.StatusServiceUnavailable, "")), stale: warned, reason: v1alpha1.ReasonServerError,
		},
		"token-service-429": {
			begin: fails(status(http.StatusTooManyRequests, "", "Retry-After", "6")), stale: warned,
			reason: v1alpha1.ReasonServerError,
		},
		"token-service-refuses": {
			begin: fails(status(http.StatusUnauthorized, refused)), reason: v1alpha1.ReasonUnauthorized,
		},
	}
	for name, o := range all {
		o.own, o.faults, o.says = true, expired, []string{"token service"}
		o.end = func(_ *testing.T, s *site) { s.tokens.SetFaults() }
		all[name] = o
	}
	return all
}

// TestRegistryOutages goes through all outages. Each has its own gate, and its own proxy in front
// of a real registry.
func TestRegistryOutages(t *testing.T) {
	t.Parallel()
	tagged, listed := newDistribution(t), newReferrersAPI(t)
	for name, o := range outages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			behind := tagged
			switch {
			case o.api:
				behind = listed
			case o.own:
				behind = newDistribution(t)
			}
			newSite(t, behind, o.timeout).testOutage(t, o)
		})
	}
}

// testOutage checks the decisions before, during and after an outage.
func (s *site) testOutage(t *testing.T, o outage) {
	s.learn(t)
	if o.faults != nil {
		s.proxy.Set(o.faults(s)...)
	}
	if o.begin != nil {
		o.begin(t, s)
	}
	s.Clock.Step(time.Second) // a denial refreshes its evidence
	s.want(t, "fresh", admitted)
	s.want(t, "digest", admitted)
	stop := func() {}
	if o.pauses {
		stop = s.moveOn(t, time.Second)
	}
	s.want(t, "stale", o.stale, o.says...)
	s.want(t, "half", o.half, o.says...)
	s.want(t, "new", o.unknown, o.says...)
	s.want(t, "new-digest", o.unknownDigest, o.says...)
	stop()
	s.awaitStatus(t, o.reason)

	s.proxy.Set()
	if o.end != nil {
		o.end(t, s)
	}
	for _, tag := range []string{"new", "new-digest", "stale", "fresh", "digest"} {
		s.await(t, tag, admitted, nextTry)
	}
	s.await(t, "half", denied, nextTry)
	s.awaitStatus(t, "")
}
