package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/testenv"
)

// stranger is the address of a client that is no API server; neighbour is one that API servers have too.
const stranger, neighbour = "127.0.0.2", "127.0.0.1"

// runGate runs a server with the gate of a bench on it.
func runGate(t *testing.T, change func(*Server)) (*running, *bench) {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	b := newBench(t)
	s := prepareServer(t, 0)
	b.Register(s.Register)
	if change != nil {
		change(s.Server)
	}
	s.serve(t)
	return s, b
}

// from returns a client of the server with an address of its own.
func (s *running) from(t *testing.T, address string, http2 bool, certificates ...tls.Certificate) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext, Protocols: protocols,
		TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool(), MinVersion: tls.VersionTLS12, Certificates: certificates},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// send posts a review to the gate as an API server does, which tries again where it is told to, within 10 s. It returns how often it was refused.
func (s *running) review(t *testing.T, client *http.Client, r request) (answer *admissionv1.AdmissionResponse, refused int) {
	t.Helper()
	raw, err := json.Marshal(r.review(t))
	if err != nil {
		t.Fatal(err)
	}
	testenv.Await(t, "an answer", func() error {
		code, body := s.post(t, client, bytes.NewReader(raw))
		if code == http.StatusTooManyRequests {
			refused++
			return errors.New("refused for lack of room")
		}
		var out admissionv1.AdmissionReview
		if err := json.Unmarshal(body, &out); err != nil || out.Response == nil {
			t.Fatalf("%d %q: %v", code, body, err)
		}
		answer = out.Response
		return nil
	})
	return answer, refused
}

func (s *running) post(t *testing.T, client *http.Client, body io.Reader) (code int, answer []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+ValidatePath, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// answered wants a signed Pod admitted and an unsigned one denied, and returns how often a client was refused before.
func (s *running) answered(t *testing.T, client *http.Client) int {
	t.Helper()
	yes, refused := s.review(t, client, request{kind: "Pod", object: object("Pod", pinned)})
	wantAdmitted(t, yes)
	no, again := s.review(t, client, request{kind: "Pod", object: object("Pod", unsigned)})
	wantDenied(t, no, 403)
	return refused + again
}

// stalled is a body that never ends: so many bytes, and then nothing until the test is over.
type stalled struct {
	left int
	over <-chan struct{}
}

func (b *stalled) Read(p []byte) (int, error) {
	if b.left == 0 {
		<-b.over
		return 0, io.ErrUnexpectedEOF
	}
	n := min(b.left, len(p))
	for i := range p[:n] {
		p[i] = ' '
	}
	b.left -= n
	return n, nil
}

// stall has a number of bodies stall, of which all but the last byte is sent, and sends each again as soon as it is refused, until it is told to stop.
func (s *running) stall(t *testing.T, address string, http2 bool, bodies, size int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for client := s.from(t, address, http2); bodies > 0; bodies-- {
		all.Go(func() {
			for ctx.Err() == nil {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+ValidatePath, &stalled{size - 1, ctx.Done()})
				if err != nil {
					t.Error(err)
					return
				}
				r.ContentLength = int64(size)
				r.Header.Set("Content-Type", "application/json")
				if resp, err := client.Do(r); err == nil {
					resp.Body.Close()
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// inUse is what the process uses, both sides of every connection together, in bytes.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// taken is what requests take of the budget.
func (b *bench) taken() int64 {
	small, large := b.budget.Used()
	return small + large
}

// Bodies that stall, small and large, from the address of an API server too, take no more than the budget. Reviews are answered
// in between, those from another address without being refused once.
func TestThreatStalledBodies(t *testing.T) {
	const bodies, most = 60, 160 << 20
	for name, c := range map[string]struct {
		http2   bool
		address string
		size    int
	}{
		"large, HTTP/1.1":              {false, stranger, maxReview},
		"large, HTTP/2":                {true, stranger, maxReview},
		"small, HTTP/1.1":              {false, stranger, smallBody},
		"small, HTTP/2":                {true, stranger, smallBody},
		"large, one address, HTTP/1.1": {false, neighbour, maxReview},
		"large, one address, HTTP/2":   {true, neighbour, maxReview},
		"small, one address, HTTP/1.1": {false, neighbour, smallBody},
		"small, one address, HTTP/2":   {true, neighbour, smallBody},
	} {
		t.Run(name, func(t *testing.T) {
			s, b := runGate(t, nil)
			before := inUse()
			stop := s.stall(t, c.address, c.http2, bodies, c.size)
			defer stop()
			testenv.Await(t, "the bodies to take all that they get", func() error {
				if taken := b.taken(); taken < 8<<20 {
					return fmt.Errorf("%d bytes", taken)
				}
				return nil
			})
			real := s.from(t, neighbour, true)
			refused := 0
			for range 20 {
				refused += s.answered(t, real)
			}
			large := object("Deployment", pinned)
			large.SetAnnotations(map[string]string{"notes": strings.Repeat("x", 1<<20)})
			got, again := s.review(t, real, request{kind: "Deployment", object: large})
			wantAdmitted(t, got)
			if c.address == stranger && refused+again > 0 {
				t.Errorf("refused %d times because of another client, and the large review %d times", refused, again)
			}
			if grown := int64(inUse()) - int64(before); grown > most {
				t.Errorf("%d MiB more in use", grown>>20)
			}
			stop()
			testenv.Await(t, "the budget to be free", func() error {
				if taken := b.taken(); taken != 0 {
					return fmt.Errorf("%d bytes are taken", taken)
				}
				return nil
			})
		})
	}
}

// A body that stalls while nobody needs the room is given up all the same, and the answer says why.
func TestThreatStalledBodyEnds(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", http2), func(t *testing.T) {
			s, b := runGate(t, nil)
			over := make(chan struct{})
			defer close(over)
			code, body := s.post(t, s.from(t, stranger, http2), &stalled{1000, over})
			var out admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &out); err != nil || code != http.StatusOK {
				t.Fatalf("%d %q: %v", code, body, err)
			}
			wantDenied(t, out.Response, http.StatusServiceUnavailable, "did not arrive within")
			testenv.Await(t, "the budget to be free", func() error {
				if taken := b.taken(); taken != 0 {
					return fmt.Errorf("%d bytes are taken", taken)
				}
				return nil
			})
		})
	}
}
