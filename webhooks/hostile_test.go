package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/port"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
)

// stranger is the address of a client that is not an API server. neighbour is an address that API
// servers and other clients share.
const stranger, neighbour = "127.0.0.2", "127.0.0.1"

// gateOptions are the options of a gate. The zero value has the memory limits of production, and
// timeouts that no test reaches.
type gateOptions struct {
	limits  Limits
	room    port.Limits
	clients *certs.ClientCA
}

// runGate runs a server with the gate of a bench on it.
func runGate(t *testing.T, o gateOptions) (*running, *bench) {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	b := newBench(t)
	b.Limits = o.room
	s := prepareServer(t, ServerOptions{Limits: o.limits, Clients: o.clients})
	b.Register(s.Register)
	s.serve(t)
	return s, b
}

// from returns a client of the server with an address of its own.
func (s *running) from(t *testing.T, address string, overHTTP2 bool, certificates ...tls.Certificate) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!overHTTP2)
	protocols.SetHTTP2(overHTTP2)
	transport := &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext, Protocols: protocols,
		TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool(), MinVersion: tls.VersionTLS12, Certificates: certificates},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// review posts a review until it is answered, as an API server does after 429. It returns how often
// it was refused.
func (s *running) review(t *testing.T, client *http.Client, r request) (answer *admissionv1.AdmissionResponse,
	refused int) {
	t.Helper()
	raw, err := json.Marshal(r.review(t))
	if err != nil {
		t.Fatal(err)
	}
	poll.Await(t, "a review to be answered", func() error {
		code, body := s.post(t, client, raw)
		if code == http.StatusTooManyRequests {
			refused++
			return errors.New("refused with 429")
		}
		var out admissionv1.AdmissionReview
		if err := json.Unmarshal(body, &out); err != nil || out.Response == nil {
			t.Fatalf("got %d %q, %v, want a review", code, body, err)
		}
		answer = out.Response
		return nil
	})
	return answer, refused
}

// post sends a body until it is answered, and returns the answer. A nil body stalls after 1000
// bytes.
func (s *running) post(t *testing.T, client *http.Client, body []byte) (code int, answer []byte) {
	t.Helper()
	poll.Await(t, "an answer", func() error {
		stalling, stop := context.WithCancel(t.Context())
		defer stop()
		var from io.Reader = &stalled{1000, stalling}
		if body != nil {
			from = bytes.NewReader(body)
		}
		resp, err := client.Do(s.newReview(t.Context(), from))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		code = resp.StatusCode
		answer, err = io.ReadAll(resp.Body)
		stop() // otherwise Close would wait for the body
		return err
	})
	return code, answer
}

// newReview returns a request to the gate. The URL is valid, so the call cannot fail.
func (s *running) newReview(ctx context.Context, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+ValidatePath, body)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// answered checks that a signed Pod is admitted and an unsigned one denied. It returns how often
// the client was refused before.
func (s *running) answered(t *testing.T, client *http.Client) int {
	t.Helper()
	yes, refused := s.review(t, client, request{kind: "Pod", object: object("Pod", pinned)})
	wantAdmitted(t, yes)
	no, again := s.review(t, client, request{kind: "Pod", object: object("Pod", unsigned)})
	wantDenied(t, no, 403)
	return refused + again
}

// stalled is a body of some bytes that then blocks until a context ends.
type stalled struct {
	left int
	ctx  context.Context
}

func (b *stalled) Read(p []byte) (int, error) {
	if b.left == 0 {
		<-b.ctx.Done()
		return 0, io.ErrUnexpectedEOF
	}
	n := min(b.left, len(p))
	for i := range p[:n] {
		p[i] = ' '
	}
	b.left -= n
	return n, nil
}

// hostile describes a client with stalled bodies: its address and protocol, the number of bodies
// and their size in bytes.
type hostile struct {
	address      string
	http2        bool
	bodies, size int
}

// stall sends all bytes but the last of some bodies. It sends each again a while after it is
// refused, until stop is called. It counts the refusals.
func (s *running) stall(t *testing.T, h hostile) (refused *atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	refused = new(atomic.Int64)
	var all sync.WaitGroup
	client := s.from(t, h.address, h.http2)
	client.Timeout = 0
	for range h.bodies {
		all.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond) // so that the test does not measure the speed of handshakes
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				stalling, end := context.WithCancel(ctx)
				r := s.newReview(ctx, &stalled{h.size - 1, stalling})
				r.ContentLength = int64(h.size)
				resp, err := client.Do(r)
				end()
				if err == nil {
					refused.Add(1)
					resp.Body.Close()
				}
			}
		})
	}
	return refused, func() {
		cancel()
		all.Wait()
	}
}

// inUse returns the memory of the process in bytes, with both sides of every connection. A
// sync.Pool keeps its objects through one garbage collection, so there are two.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// used returns how many bytes of the budget are reserved.
func (b *bench) used() int64 {
	small, large := b.budget.Used()
	return small + large
}

// awaitFree waits until nothing of the budget is reserved.
func (b *bench) awaitFree(t *testing.T) {
	t.Helper()
	poll.Await(t, "the budget to be free", func() error {
		if used := b.used(); used != 0 {
			return fmt.Errorf("%d bytes are in use", used)
		}
		return nil
	})
}

// little returns limits for a few bodies, of which those up to 32 KiB are small. Each client may
// use half.
func little(patience, grace time.Duration) port.Limits {
	return port.Limits{
		Small:     port.Share{Size: 1 << 20, Each: 512 << 10, Waiting: 16},
		Large:     port.Share{Size: 2 << 20, Each: 1 << 20, Waiting: 2},
		SmallUpTo: 128 << 10, Patience: patience, Grace: grace,
	}
}

// Sizes of stalled bodies: a large and a small one by the limits of little, and one that is smaller
// than a review of a Pod.
const largeStalled, smallStalled, tinyStalled = 100 << 10, 30 << 10, 100

// full returns an error until the bodies use all memory that one client may use.
func (h hostile) full(b *bench, room port.Limits) error {
	small, large := b.budget.Used()
	if h.size == largeStalled && large == room.Large.Each || h.size != largeStalled && small > room.Small.Each*3/4 {
		return nil
	}
	return fmt.Errorf("%d small and %d large bytes are in use", small, large)
}

// Stalled bodies, small and large, use no more than the limit of their client. Meanwhile small and
// large reviews from another address are answered and never refused, although here nothing is
// evicted and a waiting request waits for ever.
func TestThreatStalledBodies(t *testing.T) {
	const bodies = 24 // more than fit, so that some wait
	for name, h := range map[string]hostile{
		"large, HTTP/1.1": {stranger, false, bodies, largeStalled},
		"large, HTTP/2":   {stranger, true, bodies, largeStalled},
		"small, HTTP/1.1": {stranger, false, bodies, smallStalled},
		"small, HTTP/2":   {stranger, true, bodies, smallStalled},
	} {
		t.Run(name, func(t *testing.T) {
			room := little(time.Hour, time.Hour)
			s, b := runGate(t, gateOptions{room: room})
			_, stop := s.stall(t, h)
			defer stop()
			poll.Await(t, "the bodies to use all that their client may", func() error {
				small, large := b.budget.Used()
				if small > room.Small.Each || large > room.Large.Each {
					t.Fatalf("got %d small and %d large bytes of one client, want at most %d and %d", small, large,
						room.Small.Each, room.Large.Each)
				}
				return h.full(b, room)
			})
			server := s.from(t, neighbour, true)
			refused := s.answered(t, server)
			large := object("Deployment", pinned)
			large.SetAnnotations(map[string]string{"notes": strings.Repeat("x", largeStalled)})
			got, again := s.review(t, server, request{kind: "Deployment", object: large})
			wantAdmitted(t, got)
			if refused+again > 0 {
				t.Errorf("got %d refusals, and %d of the large review, want none", refused, again)
			}
			stop()
			b.awaitFree(t)
		})
	}
}

// The gate cannot tell stalled bodies from reviews of the same address. It answers small reviews
// all the same: it evicts stalled bodies, and large bodies use no memory of the small share.
func TestThreatStalledBodiesOfOneAddress(t *testing.T) {
	const bodies = 24
	for name, h := range map[string]hostile{
		"large, HTTP/1.1": {neighbour, false, bodies, largeStalled},
		"large, HTTP/2":   {neighbour, true, bodies, largeStalled},
		"tiny, HTTP/1.1":  {neighbour, false, bodies, tinyStalled},
		"tiny, HTTP/2":    {neighbour, true, bodies, tinyStalled},
	} {
		t.Run(name, func(t *testing.T) {
			room := little(time.Hour, 10*time.Millisecond)
			if h.size == tinyStalled {
				room.Small.Each = 128 << 10
			}
			s, b := runGate(t, gateOptions{room: room})
			_, stop := s.stall(t, h)
			defer stop()
			poll.Await(t, "the bodies to use all that their client may", func() error { return h.full(b, room) })
			s.answered(t, s.from(t, neighbour, true))
			stop()
			b.awaitFree(t)
		})
	}
}

// Stalled bodies of the largest size use no more memory than the budget of production, and the cost
// of waiting requests.
func TestThreatMemoryOfStalledBodies(t *testing.T) {
	const bodies, most = 60, 128 << 20
	s, b := runGate(t, gateOptions{})
	before := inUse()
	refused, stop := s.stall(t, hostile{stranger, true, bodies, maxReview})
	defer stop()
	limits := port.DefaultLimits()
	poll.Await(t, "one body to have its memory, and most others to be refused", func() error {
		small, large := b.budget.Used()
		if small > limits.Small.Each || large > limits.Large.Each {
			t.Fatalf("got %d small and %d large bytes of one client, want at most %d and %d", small, large,
				limits.Small.Each, limits.Large.Each)
		}
		if n := refused.Load(); large < maxReview*decodeFactor || n < bodies*3/4 {
			return fmt.Errorf("%d small and %d large bytes are in use, %d are refused", small, large, n)
		}
		return nil
	})
	if grown := int64(inUse()) - int64(before); grown > most {
		t.Errorf("got %d MiB more in use, want at most %d", grown>>20, most>>20)
	}
	stop()
	b.awaitFree(t)
}

// A stalled body times out even if no other request needs its memory, and the answer says so.
func TestThreatStalledBodyEnds(t *testing.T) {
	for _, overHTTP2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", overHTTP2), func(t *testing.T) {
			limits := patient()
			limits.Read = 300 * time.Millisecond // long enough for a handshake
			s, b := runGate(t, gateOptions{limits: limits})
			code, body := s.post(t, s.from(t, stranger, overHTTP2), nil)
			var out admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &out); err != nil || code != http.StatusOK {
				t.Fatalf("got %d %q, %v, want a review", code, body, err)
			}
			wantDenied(t, out.Response, http.StatusServiceUnavailable, "did not arrive within 300ms")
			b.awaitFree(t)
		})
	}
}

// dial opens a connection from an address.
func (s *running) dial(t *testing.T, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// handshake opens a connection from an address and does the TLS handshake, for one protocol.
func (s *running) handshake(t *testing.T, address, protocol string) *tls.Conn {
	t.Helper()
	conn := tls.Client(s.dial(t, address), &tls.Config{
		RootCAs: s.ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12, NextProtos: []string{protocol},
	})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Of a thousand streams with stalled bodies on one connection, only maxStreams are accepted.
func TestThreatThousandsOfStreams(t *testing.T) {
	const streams = 1000
	s, b := runGate(t, gateOptions{})
	conn := s.handshake(t, neighbour, "h2")
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	allowed := make(chan uint32, 1)
	var refused atomic.Int64
	go func() {
		defer close(allowed)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch f := frame.(type) {
			case *http2.SettingsFrame:
				if n, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
					allowed <- n
				}
			case *http2.RSTStreamFrame:
				refused.Add(1)
			}
		}
	}()
	if n := <-allowed; n != maxStreams {
		t.Errorf("got a limit of %d streams, want %d", n, maxStreams)
	}
	if err := framer.WriteSettingsAck(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range uint32(streams) {
		block.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"},
			{Name: ":path", Value: ValidatePath},
			{Name: "content-type", Value: "application/json"}, {Name: "x", Value: strings.Repeat("x", 1<<10)},
		} {
			if err := encoder.WriteField(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := framer.WriteHeaders(
			http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	const each = requestCost + decodeFactor*firstRead
	poll.Await(t, "the accepted streams to stall, and all others to be refused", func() error {
		if n, used := refused.Load(), b.used(); n < streams-maxStreams || used < maxStreams*each {
			return fmt.Errorf("%d are refused, and %d bytes in use", n, used)
		}
		return nil
	})
	if used, most := b.used(), int64(maxStreams*(each+maxHeader)); used > most {
		t.Errorf("got %d bytes in use, want at most %d", used, most)
	}
	if refused := s.answered(t, s.from(t, neighbour, true)); refused > 0 {
		t.Errorf("a review: got %d refusals, want none", refused)
	}
}

// Above the limit of a client, its idle connections are closed before the working one. Idle are
// those without a request, with half a handshake, or with half a header.
func TestThreatManyConnections(t *testing.T) {
	const each = 16
	limits := patient()
	limits.Connections, limits.HTTP2 = port.ConnLimits{All: 3 * each, Each: each}, port.ConnLimits{All: 8, Each: 4}
	s, _ := runGate(t, gateOptions{limits: limits})
	server := s.from(t, neighbour, true)
	if refused := s.answered(t, server); refused > 0 {
		t.Errorf("got %d refusals, want none", refused)
	}
	for i := range 3 * each {
		switch i % 4 {
		case 0:
			_, _ = s.dial(t, neighbour).Write([]byte{22, 3, 1}) // the beginning of a handshake
		case 1:
			s.handshake(t, neighbour, "h2")
		default:
			_, _ = s.handshake(t, neighbour, "http/1.1").Write([]byte("POST / HTTP/1.1\r\n"))
		}
		if i%5 == 0 {
			reused := true
			traced := httptrace.WithClientTrace(t.Context(),
				&httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
			r, err := http.NewRequestWithContext(traced, http.MethodPost, s.url+"/now", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := server.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if !reused {
				t.Error("got a new connection, want the working one to stay open")
			}
			s.answered(t, server)
		}
		if n := s.conns.Open(); n > each {
			t.Fatalf("got %d open connections, want at most %d", n, each)
		}
	}
}

// A header larger than maxHeader is refused, over both protocols.
func TestThreatLargeHeaders(t *testing.T) {
	s, _ := runGate(t, gateOptions{})
	for _, overHTTP2 := range []bool{false, true} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+ValidatePath, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X", strings.Repeat("x", 2*maxHeader))
		resp, err := s.from(t, stranger, overHTTP2).Do(r)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("HTTP/2 %t: got %s, want 431 or a closed connection", overHTTP2, resp.Status)
			}
		}
	}
}

// Short bodies that are deeply nested or full of values cost about as much memory as they reserve.
// So many of them at once cost no more than the budget. The test measures all allocated bytes,
// which are at least the bytes in use at once.
func TestThreatCostlyBodies(t *testing.T) {
	const most = 2 << 20
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"7","namespace":"shop","operation":"CREATE","resource":{"version":"v1","resource":"pods"},`
	fill := func(begin, value, end string) string {
		return head + begin + strings.Repeat(value+",", (smallBody-len(head)-len(begin)-len(end))/(len(value)+1)-1) +
			value + end + "}}"
	}
	for name, body := range map[string]string{
		"deep object": head + `"object":{"spec":{"containers":` + strings.Repeat(`[`, 9990) +
			strings.Repeat(`]`, 9990) + `}}}}`,
		"deep":       head + `"x":` + strings.Repeat(`{"":`, 9990) + `0` + strings.Repeat(`}`, 9990) + `}}`,
		"groups":     fill(`"userInfo":{"groups":[`, `""`, `]}`),
		"extra":      fill(`"userInfo":{"extra":{`, `"":[]`, `}}`),
		"values":     fill(`"x":[`, `{"":0}`, `]`),
		"containers": fill(`"object":{"spec":{"containers":[`, `{}`, `]}}`),
		"owners":     fill(`"object":{"metadata":{"ownerReferences":[`, `{}`, `]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			if len(body) > smallBody {
				t.Fatalf("got a test body of %d bytes, want at most %d", len(body), smallBody)
			}
			b := newBench(t)
			least := uint64(math.MaxUint64)
			for range 5 { // other goroutines can only add to the figure
				least = min(least, b.allocated(t, body))
			}
			if least > most {
				t.Errorf("got %d KiB allocated for a body of %d, want at most %d", least>>10, len(body)>>10, most>>10)
			}
		})
	}
}

// allocated sends a body that is denied, and returns how many bytes the handler allocated.
func (b *bench) allocated(t *testing.T, body string) uint64 {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ValidatePath, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.handler.ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	if !strings.Contains(w.Body.String(), `"allowed":false`) {
		t.Errorf("got %d %.300s, want a denial", w.Code, w.Body)
	}
	return after.TotalAlloc - before.TotalAlloc
}

// Large reviews that wait for a signing server free the memory of their bodies. So many of them do
// not use up the memory for other reviews.
func TestThreatWaitingForEvidenceTakesNoRoom(t *testing.T) {
	const reviews, bulk = 20, 200 << 10 // the budget has memory for all of them at once
	large := object("Deployment", pinned)
	large.SetAnnotations(map[string]string{"notes": strings.Repeat("x", bulk)})
	long := strings.Repeat("x", bulk)
	extra := map[string]authenticationv1.ExtraValue{}
	for i := range maxValues / 3 {
		extra[fmt.Sprint(i, long[:20])] = authenticationv1.ExtraValue{"x"}
	}
	for name, change := range map[string]func(*admissionv1.AdmissionRequest){
		"object":  func(r *admissionv1.AdmissionRequest) { r.Object.Raw = encode(t, large) },
		"options": func(r *admissionv1.AdmissionRequest) { r.Options.Raw = encode(t, map[string]string{"x": long}) },
		"user":    func(r *admissionv1.AdmissionRequest) { r.UserInfo.Username = long },
		"extra":   func(r *admissionv1.AdmissionRequest) { r.UserInfo.Extra = extra },
	} {
		t.Run(name, func(t *testing.T) {
			s, b := runGate(t, gateOptions{})
			fetching, answer := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.root.mu.Lock()
			b.root.answer = func(context.Context, string) (trust.Evidence, error) {
				once.Do(func() { close(fetching) })
				<-answer
				return usual(), nil
			}
			b.root.mu.Unlock()
			review := request{kind: "Deployment", object: object("Deployment", pinned)}.review(t)
			change(review.Request)
			raw := encode(t, review)
			client := s.from(t, neighbour, true)
			before := inUse()
			var all sync.WaitGroup
			for range reviews {
				all.Go(func() { s.post(t, client, raw) })
			}
			<-fetching
			poll.Await(t, "all reviews to wait with little memory reserved", func() error {
				if used := b.used(); used < reviews*requestCost || used > reviews*(requestCost+(4<<10)) {
					return fmt.Errorf("%d bytes are reserved", used)
				}
				return nil
			})
			// A review releases its reservation shortly before the last reference to its body, so
			// the memory in use drops a little later.
			poll.Await(t, "the memory of all bodies to be freed", func() error {
				if grown := int64(inUse()) - int64(before); grown > reviews*bulk/2 {
					return fmt.Errorf("%d KiB more are in use", grown>>10)
				}
				return nil
			})
			close(answer)
			all.Wait()
		})
	}
}

// A header field without a value reserves memory too.
func TestThreatManyHeaderFields(t *testing.T) {
	h := http.Header{}
	for i := range 2700 {
		h[fmt.Sprint(i)] = []string{""}
	}
	if got := headerSize(h); got < 100*2700 {
		t.Errorf("got %d bytes reserved, want at least %d", got, 100*2700)
	}
}

// The names in a review are limited in length, and so is what the log has of them.
func TestThreatNamesInReviewsAreBounded(t *testing.T) {
	const long = 300 << 10
	log := new(lines)
	b := newBench(t)
	e := &endpoint{handle: b.Validate}
	ctx := ctrl.LoggerInto(t.Context(), funcr.New(log.write, funcr.Options{}))
	x := strings.Repeat("x", long)
	for field, change := range map[string]func(*admissionv1.AdmissionRequest){
		"":                         func(r *admissionv1.AdmissionRequest) { r.UserInfo.Username = x },
		"request.uid":              func(r *admissionv1.AdmissionRequest) { r.UID = types.UID(x) },
		"request.name ":            func(r *admissionv1.AdmissionRequest) { r.Name = x },
		"request.namespace":        func(r *admissionv1.AdmissionRequest) { r.Namespace = x },
		"request.operation":        func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Operation(x) },
		"request.kind.kind":        func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = x },
		"request.resource.version": func(r *admissionv1.AdmissionRequest) { r.Resource.Version = x },
	} {
		review := request{kind: "Pod", object: object("Pod", unsigned)}.review(t)
		change(review.Request)
		got := e.answer(ctx, encode(t, review), nil)
		if field == "" {
			wantDenied(t, got, http.StatusForbidden)
		} else {
			wantDenied(t, got, http.StatusBadRequest, field, "is longer than")
		}
	}
	named := object("Pod", unsigned)
	named.SetName(x)
	review := request{kind: "Pod", object: named}.review(t)
	review.Request.Name = ""
	wantDenied(t, e.answer(ctx, encode(t, review), nil), http.StatusForbidden)
	written := log.all()
	if len(written) == 0 {
		t.Error("got no log lines, want some")
	}
	for _, line := range written {
		if len(line) > 16<<10 {
			t.Errorf("got a log line of %d bytes, want at most %d: %.300s", len(line), 16<<10, line)
		}
	}
}
