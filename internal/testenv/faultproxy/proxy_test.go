package faultproxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

const (
	gun = "localhost:5000/acme/app"
	sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
)

// get fetches a metadata file from a proxy.
func get(ctx context.Context, f *faultproxy.Proxy, file string) (*http.Response, []byte, error) {
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.CA.Pool()}, DisableKeepAlives: true},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/v2/"+gun+"/_trust/tuf/"+file, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Basic x")
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestFaults(t *testing.T) {
	n := notaryserver.Run(t, notaryserver.Options{})
	c := notaryserver.RunClient(t, n)
	if err := c.Init(t.Context(), gun); err != nil {
		t.Fatal(err)
	}
	f := faultproxy.Run(t, n.URL, n.CA)
	_, whole, err := get(t.Context(), f, "root.json")
	if err != nil || len(whole) < 100 {
		t.Fatalf("without faults: %v, %q", err, whole)
	}
	t.Run("answers", func(t *testing.T) { testSpoiltAnswers(t, f, whole) })
	t.Run("rules", func(t *testing.T) { testFaultRules(t, f) })
	t.Run("records", func(t *testing.T) { testFaultRecords(t, f) })
	t.Run("hangs", func(t *testing.T) { testHangs(t, f) })
	t.Run("holds", func(t *testing.T) { testHolds(t, f, whole) })
	t.Run("endless", func(t *testing.T) { testEndless(t, f) })
	t.Run("connections", func(t *testing.T) { testFaultConnections(t, f) })
	t.Run("old", func(t *testing.T) { testOldAnswers(t, f, c) })
}

func testSpoiltAnswers(t *testing.T, f *faultproxy.Proxy, whole []byte) {
	tests := map[string]struct {
		fault  faultproxy.Fault
		status int
		body   []byte // nil: whole
		header string
		broken bool
	}{
		"none":  {fault: faultproxy.Fault{}, status: http.StatusOK},
		"delay": {fault: faultproxy.Fault{Delay: 200 * time.Millisecond}, status: http.StatusOK},
		"another path": {
			fault:  faultproxy.Fault{Match: notaryserver.File("snapshot"), Status: http.StatusNotFound},
			status: http.StatusOK,
		},
		"too many": {
			fault:  faultproxy.Fault{Status: http.StatusTooManyRequests, RetryAfter: "7", Body: "slow down"},
			status: 429, body: []byte("slow down"), header: "7",
		},
		"delay and status": {
			fault: faultproxy.Fault{Delay: 200 * time.Millisecond, Status: http.StatusBadGateway}, status: 502,
			body: []byte{},
		},
		"truncated": {fault: faultproxy.Fault{Truncate: 40}, status: http.StatusOK, body: whole[:40]},
		"cut":       {fault: faultproxy.Fault{Cut: 40}, status: http.StatusOK, body: whole[:40], broken: true},
		"corrupt":   {fault: faultproxy.Fault{Corrupt: true}, status: http.StatusOK, body: flipped(whole)},
		"another method": {
			fault: faultproxy.Fault{Method: http.MethodHead, Status: http.StatusNotFound}, status: http.StatusOK,
		},
		"header": {
			fault:  faultproxy.Fault{Header: map[string]string{"Retry-After": "9"}},
			status: http.StatusOK, header: "9",
		},
		"header of a status": {
			fault: faultproxy.Fault{
				Status: http.StatusFound, Body: "elsewhere", Header: map[string]string{"Retry-After": "9"},
			},
			status: http.StatusFound, body: []byte("elsewhere"), header: "9",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f.Set(tt.fault)
			defer f.Set()
			begun := time.Now()
			resp, body, err := get(t.Context(), f, "root.json")
			if resp == nil {
				t.Fatal(err)
			}
			if tt.broken != errors.Is(err, io.ErrUnexpectedEOF) || !tt.broken && err != nil {
				t.Errorf("got error %v on reading the body, want an unexpected EOF: %t", err, tt.broken)
			}
			want := tt.body
			if want == nil {
				want = whole
			}
			if resp.StatusCode != tt.status || !bytes.Equal(body, want) || resp.Header.Get("Retry-After") != tt.header {
				t.Errorf("got %s, Retry-After %q, body %q; want %d, %q, %q", resp.Status,
					resp.Header.Get("Retry-After"),
					body, tt.status, tt.header, want)
			}
			if !tt.broken && resp.ContentLength != int64(len(want)) {
				t.Errorf("got Content-Length %d, want %d", resp.ContentLength, len(want))
			}
			if took := time.Since(begun); took < tt.fault.Delay {
				t.Errorf("the response took %s, want %s at least", took, tt.fault.Delay)
			}
		})
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

func testFaultRules(t *testing.T, f *faultproxy.Proxy) {
	f.Set(
		faultproxy.Fault{Match: notaryserver.File("root"), Times: 2, Status: 500},
		faultproxy.Fault{Match: notaryserver.File("root"), Times: 1, Drop: true},
		faultproxy.Fault{Match: notaryserver.File("timestamp"), Status: 503},
	)
	defer f.Set()
	var got []int
	for range 4 {
		resp, _, err := get(t.Context(), f, "root.json")
		if err != nil {
			got = append(got, 0)
			continue
		}
		got = append(got, resp.StatusCode)
	}
	if diff := cmp.Diff([]int{500, 500, 0, 200}, got); diff != "" {
		t.Errorf("statuses, 0 for no response (-want +got):\n%s", diff)
	}
	f.Set()
	if resp, _, err := get(t.Context(), f, "timestamp.json"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("without faults: got %v, %v; want status 200", resp, err)
	}
}

func testFaultRecords(t *testing.T, f *faultproxy.Proxy) {
	f.Reset()
	f.Set(faultproxy.Fault{Delay: 300 * time.Millisecond})
	defer f.Set()
	before := time.Now()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { _, _, _ = get(t.Context(), f, "root.json") })
	}
	wg.Wait()
	if got := f.Peak(); got < 2 || got > 3 {
		t.Errorf("got a peak of %d requests in flight, want 3 (2 on a busy machine)", got)
	}
	requests := f.Requests()
	if len(requests) != 3 {
		t.Fatalf("got the requests %v, want three", requests)
	}
	for _, r := range requests {
		if r.Path != "/v2/"+gun+"/_trust/tuf/root.json" || !r.Authorized || r.At.Before(before) ||
			r.At.After(time.Now()) {
			t.Errorf("got request %+v, want root.json of %s, authorized, after %s", r, gun, before)
		}
	}
	if f.Reset(); len(f.Requests()) != 0 || f.Peak() != 0 {
		t.Errorf("after a reset: got the requests %v and peak %d, want none", f.Requests(), f.Peak())
	}
}

func testHangs(t *testing.T, f *faultproxy.Proxy) {
	f.Set(faultproxy.Fault{Hang: true})
	defer f.Set()
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, _, err := get(short, f, "root.json"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: got %v, want an exceeded deadline", err)
	}
	poll.Await(t, "the proxy to see that the client closed the connection", func() error {
		f.Reset()
		if f.Peak() > 0 {
			return errors.New("a request is still in flight")
		}
		return nil
	})
}

// testHolds checks that a request that is held goes through once the faults are replaced.
func testHolds(t *testing.T, f *faultproxy.Proxy, whole []byte) {
	f.Set(faultproxy.Fault{Hold: true, Status: http.StatusTeapot})
	defer f.Set()
	f.Reset()
	type answer struct {
		body []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		_, body, err := get(t.Context(), f, "root.json")
		answers <- answer{body, err}
	}()
	poll.AwaitTrue(t, "the request to arrive", func() bool { return len(f.Requests()) == 1 })
	select {
	case got := <-answers:
		t.Fatalf("got %q, %v while the request is held, want no response", got.body, got.err)
	default:
	}
	f.Set()
	if got := <-answers; got.err != nil || !bytes.Equal(got.body, whole) {
		t.Errorf("got %q, %v, want the response of the server", got.body, got.err)
	}
}

// testEndless checks that a body has no end until the client closes the connection.
func testEndless(t *testing.T, f *faultproxy.Proxy) {
	f.Set(faultproxy.Fault{Endless: true, Body: "begin"})
	defer f.Set()
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	resp, body, err := get(short, f, "root.json")
	if resp == nil || resp.StatusCode != http.StatusOK || !errors.Is(err, context.DeadlineExceeded) ||
		len(body) < 1<<20 || !bytes.HasPrefix(body, []byte("begin")) {
		t.Errorf("got %v, %d bytes and error %v, want status 200 and a body of more than 1 MiB without an end", resp,
			len(body), err)
	}
}

func testFaultConnections(t *testing.T, f *faultproxy.Proxy) {
	connections := f.Connections()
	f.Disconnect()
	if _, _, err := get(t.Context(), f, "root.json"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("disconnected: got %v, want a refused connection", err)
	}
	if err := f.Reconnect(); err != nil {
		t.Fatal(err)
	}
	other, err := tlstest.NewCA("another test CA")
	if err != nil {
		t.Fatal(err)
	}
	subject := pkix.Name{CommonName: "fault-proxy"}
	tests := map[string]struct {
		issue func() (*tlstest.Certificate, error)
		want  string
	}{
		"expired":    {func() (*tlstest.Certificate, error) { return f.CA.IssueExpired(subject) }, "expired"},
		"another CA": {func() (*tlstest.Certificate, error) { return other.Issue(subject) }, "unknown authority"},
		"another name": {
			func() (*tlstest.Certificate, error) { return f.CA.Issue(subject, "elsewhere.example.com") },
			"not localhost",
		},
		"good": {func() (*tlstest.Certificate, error) { return f.CA.Issue(subject) }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cert, err := tt.issue()
			if err != nil {
				t.Fatal(err)
			}
			f.Serve(cert)
			if _, _, err = get(t.Context(), f, "root.json"); tt.want == "" && err != nil || tt.want != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	good, err := f.CA.Issue(subject)
	if err != nil {
		t.Fatal(err)
	}
	f.Serve(good)
	if got := f.Connections() - connections; got != int64(len(tests)) {
		t.Errorf("got %d connections, want %d", got, len(tests))
	}
}

func testOldAnswers(t *testing.T, f *faultproxy.Proxy, c *notaryserver.Client) {
	fetch := func(file string) string {
		_, body, err := get(t.Context(), f, file)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	before := fetch("targets.json")
	f.BackUp()
	if err := c.AddHash(t.Context(), gun, "v1", 528, sum); err != nil {
		t.Fatal(err)
	}
	now := fetch("targets.json")
	if now == before {
		t.Fatal("targets.json has not changed after a publication")
	}
	f.Set(faultproxy.Fault{Old: true})
	defer f.Set()
	if got := fetch("targets.json"); got != before {
		t.Errorf("old: got %s, want the copy %s", got, before)
	}
	if got := fetch("targets." + strings.Repeat("0", 64) + ".json"); got != before {
		t.Errorf("old, by another hash: got %s, want the copy %s", got, before)
	}
	f.Set()
	if got := fetch("targets.json"); got != now {
		t.Errorf("without the fault: got %s, want %s", got, now)
	}
}
