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

// stranger is the address of a client that is no API server; neighbour is one that API servers have
// too.
const stranger, neighbour = "127.0.0.2", "127.0.0.1"

// gateOptions are what a gate is run with; the zero value leaves it the memory of production, and
// all the time in the world.
type gateOptions struct {
	limits  Limits
	room    port.Limits
	clients *certs.ClientCA
}

// runGate runs a server with the gate of a bench on it.
func runGate(t *testing.T, o gateOptions) (*running, *bench) {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	if o.limits == (Limits{}) {
		o.limits = patient()
	}
	b := newBench(t)
	b.Limits = o.room
	s := prepareServer(t, 0, o.limits)
	s.Clients = o.clients
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

// review posts a review to the gate until it is answered, as an API server does that is told to try
// again. It returns how often it was refused.
func (s *running) review(t *testing.T, client *http.Client, r request) (answer *admissionv1.AdmissionResponse,
	refused int) {
	t.Helper()
	raw, err := json.Marshal(r.review(t))
	if err != nil {
		t.Fatal(err)
	}
	poll.Await(t, "a review to find room", func() error {
		code, body := s.post(t, client, raw)
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

// post sends a body until it is answered, and returns the answer. A body that is nil stalls after
// 1000 bytes.
func (s *running) post(t *testing.T, client *http.Client, body []byte) (code int, answer []byte) {
	t.Helper()
	poll.Await(t, "an answer", func() error {
		once, enough := context.WithCancel(t.Context())
		defer enough()
		var from io.Reader = &stalled{1000, once}
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
		enough() // or Close waits for the body
		return err
	})
	return code, answer
}

// newReview makes a request to the gate. The URL is good, so it cannot fail.
func (s *running) newReview(ctx context.Context, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+ValidatePath, body)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// answered wants a signed Pod admitted and an unsigned one denied, and returns how often a client
// was refused before.
func (s *running) answered(t *testing.T, client *http.Client) int {
	t.Helper()
	yes, refused := s.review(t, client, request{kind: "Pod", object: object("Pod", pinned)})
	wantAdmitted(t, yes)
	no, again := s.review(t, client, request{kind: "Pod", object: object("Pod", unsigned)})
	wantDenied(t, no, 403)
	return refused + again
}

// stalled is a body that never ends: so many bytes, and then nothing until somebody has had enough.
type stalled struct {
	left int
	over context.Context
}

func (b *stalled) Read(p []byte) (int, error) {
	if b.left == 0 {
		<-b.over.Done()
		return 0, io.ErrUnexpectedEOF
	}
	n := min(b.left, len(p))
	for i := range p[:n] {
		p[i] = ' '
	}
	b.left -= n
	return n, nil
}

// hostile says which bodies stall: from an address, over a protocol, how many, and of which size in
// bytes.
type hostile struct {
	address      string
	http2        bool
	bodies, size int
}

// stall has bodies stall of which all but the last byte is sent, and sends each again some time
// after it is refused, until it is told to stop. It counts those that were refused.
func (s *running) stall(t *testing.T, h hostile) (refused *atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	refused = new(atomic.Int64)
	var all sync.WaitGroup
	client := s.from(t, h.address, h.http2)
	client.Timeout = 0
	for range h.bodies {
		all.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond) // it is not the machine's speed at handshakes that is tested
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				once, enough := context.WithCancel(ctx)
				r := s.newReview(ctx, &stalled{h.size - 1, once})
				r.ContentLength = int64(h.size)
				resp, err := client.Do(r)
				enough()
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

// inUse is what the process uses, both sides of every connection together, in bytes. A pool keeps
// what is given back to it through one collection, so there are two.
func inUse() uint64 {
	runtime.GC()
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

// awaitFree waits until no request takes anything of the budget.
func (b *bench) awaitFree(t *testing.T) {
	t.Helper()
	poll.Await(t, "the budget to be free", func() error {
		if taken := b.taken(); taken != 0 {
			return fmt.Errorf("%d bytes are taken", taken)
		}
		return nil
	})
}

// little is a budget of some bodies, of which those up to 32 KiB are small ones. Each client has
// half of it.
func little(patience, grace time.Duration) port.Limits {
	return port.Limits{
		Small:     port.Share{Size: 1 << 20, Each: 512 << 10, Waiting: 16},
		Large:     port.Share{Size: 2 << 20, Each: 1 << 20, Waiting: 2},
		SmallUpTo: 128 << 10, Patience: patience, Grace: grace,
	}
}

// Sizes of bodies that stall: large ones and small ones of little, and ones that take less than a
// review of a Pod.
const largeStalled, smallStalled, tinyStalled = 100 << 10, 30 << 10, 100

// full returns an error while the bodies do not take all that one client gets.
func (h hostile) full(b *bench, room port.Limits) error {
	small, large := b.budget.Used()
	if h.size == largeStalled && large == room.Large.Each || h.size != largeStalled && small > room.Small.Each*3/4 {
		return nil
	}
	return fmt.Errorf("%d and %d bytes are taken", small, large)
}

// Bodies that stall, small and large, take no more than the part of their client. Reviews from
// another address, small and large, are answered in between without being refused once, though
// nobody gives way, and whoever waits does so for ever.
func TestThreatStalledBodies(t *testing.T) {
	const bodies = 24 // some stall, some wait
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
			poll.Await(t, "the bodies to take all that they get", func() error {
				small, large := b.budget.Used()
				if small > room.Small.Each || large > room.Large.Each {
					t.Fatalf("one client takes %d and %d bytes", small, large)
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
				t.Errorf("refused %d times because of another client, and the large review %d times", refused, again)
			}
			stop()
			b.awaitFree(t)
		})
	}
}

// Nobody can tell the bodies that stall from reviews of the same address. Small reviews are
// answered all the same: those that stall give way, and large ones take nothing of what is for
// small ones.
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
			poll.Await(t, "the bodies to take all that they get", func() error { return h.full(b, room) })
			s.answered(t, s.from(t, neighbour, true))
			stop()
			b.awaitFree(t)
		})
	}
}

// Bodies of the greatest size that stall take no more memory than the budget of production, and
// what goes with requests that wait.
func TestThreatMemoryOfStalledBodies(t *testing.T) {
	const bodies, most = 60, 128 << 20
	s, b := runGate(t, gateOptions{})
	before := inUse()
	refused, stop := s.stall(t, hostile{stranger, true, bodies, maxReview})
	defer stop()
	limits := port.DefaultLimits()
	poll.Await(t, "one body to have its room, and most others to be refused", func() error {
		small, large := b.budget.Used()
		if small > limits.Small.Each || large > limits.Large.Each {
			t.Fatalf("one client takes %d and %d bytes", small, large)
		}
		if n := refused.Load(); large < maxReview*decodeFactor || n < bodies*3/4 {
			return fmt.Errorf("%d and %d bytes, %d refused", small, large, n)
		}
		return nil
	})
	if grown := int64(inUse()) - int64(before); grown > most {
		t.Errorf("%d MiB more in use", grown>>20)
	}
	stop()
	b.awaitFree(t)
}

// A body that stalls while nobody needs the room is given up all the same, and the answer says why.
func TestThreatStalledBodyEnds(t *testing.T) {
	for _, overHTTP2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", overHTTP2), func(t *testing.T) {
			limits := patient()
			limits.Read = 300 * time.Millisecond // which a handshake must fit in
			s, b := runGate(t, gateOptions{limits: limits})
			code, body := s.post(t, s.from(t, stranger, overHTTP2), nil)
			var out admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &out); err != nil || code != http.StatusOK {
				t.Fatalf("%d %q: %v", code, body, err)
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

// shake opens a connection from an address and shakes hands, for one protocol.
func (s *running) shake(t *testing.T, address, protocol string) *tls.Conn {
	t.Helper()
	shaken := tls.Client(s.dial(t, address), &tls.Config{
		RootCAs: s.ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12, NextProtos: []string{protocol},
	})
	if err := shaken.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return shaken
}

// A thousand streams on one connection, each with a body that stalls, are cut down to what a
// connection may have.
func TestThreatThousandsOfStreams(t *testing.T) {
	const streams = 1000
	s, b := runGate(t, gateOptions{})
	conn := s.shake(t, neighbour, "h2")
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
		t.Errorf("%d streams are allowed", n)
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
	poll.Await(t, "the streams that are allowed to stall, and all others to be refused", func() error {
		if n, taken := refused.Load(), b.taken(); n < streams-maxStreams || taken < maxStreams*each {
			return fmt.Errorf("%d are refused, and %d bytes taken", n, taken)
		}
		return nil
	})
	if taken := b.taken(); taken > maxStreams*(each+maxHeader) {
		t.Errorf("%d bytes are taken, by %d streams at most", taken, maxStreams)
	}
	if refused := s.answered(t, s.from(t, neighbour, true)); refused > 0 {
		t.Errorf("a review was refused %d times", refused)
	}
}

// More connections than one client may have are closed before those that are of use, whatever they
// do: nothing, half a handshake, or half a header.
func TestThreatManyConnections(t *testing.T) {
	const each = 16
	limits := patient()
	limits.Connections, limits.HTTP2 = port.ConnLimits{All: 3 * each, Each: each}, port.ConnLimits{All: 8, Each: 4}
	s, _ := runGate(t, gateOptions{limits: limits})
	server := s.from(t, neighbour, true)
	if refused := s.answered(t, server); refused > 0 {
		t.Errorf("refused %d times", refused)
	}
	for i := range 3 * each {
		switch i % 4 {
		case 0:
			_, _ = s.dial(t, neighbour).Write([]byte{22, 3, 1}) // the beginning of a handshake
		case 1:
			s.shake(t, neighbour, "h2")
		default:
			_, _ = s.shake(t, neighbour, "http/1.1").Write([]byte("POST / HTTP/1.1\r\n"))
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
				t.Error("the connection of use was closed")
			}
			s.answered(t, server)
		}
		if n := s.conns.Open(); n > each {
			t.Fatalf("%d connections are open", n)
		}
	}
}

// A header that is larger than any API server's is refused, in both protocols.
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
				t.Errorf("HTTP/2 %t: answered %s", overHTTP2, resp.Status)
			}
		}
	}
}

// Bodies that are short and nested as deep as JSON goes, or full of values, cost about what the
// budget is charged for them, so however many come at once, they cost no more than the budget. What
// is allocated in all bounds what is in use at once.
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
				t.Fatalf("%d bytes", len(body))
			}
			b := newBench(t)
			least := uint64(math.MaxUint64)
			for range 5 { // what else allocates can only add to it
				least = min(least, b.allocated(t, body))
			}
			if least > most {
				t.Errorf("%d KiB were allocated for %d", least>>10, len(body)>>10)
			}
		})
	}
}

// allocated denies a body, and returns how many bytes that allocated, beside the body.
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
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
	return after.TotalAlloc - before.TotalAlloc
}

// Reviews that wait for a signing server hold nothing of their size, whatever it is that makes them
// large. So however many there are, others find room.
func TestThreatWaitingForEvidenceTakesNoRoom(t *testing.T) {
	const reviews, bulk = 20, 200 << 10 // whose bodies have room all at once
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
			asked, answer := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.root.mu.Lock()
			b.root.answer = func(context.Context, string) (trust.Evidence, error) {
				once.Do(func() { close(asked) })
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
			<-asked
			poll.Await(t, "all reviews to wait, and to take next to nothing", func() error {
				if taken := b.taken(); taken < reviews*requestCost || taken > reviews*(requestCost+(4<<10)) {
					return fmt.Errorf("they take %d bytes", taken)
				}
				return nil
			})
			// A review gives its room back before it lets go of the body, so what is in use comes
			// down a little later.
			poll.Await(t, "all reviews to hold nothing of their size", func() error {
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

// A field of a header that has no value is charged for what it takes all the same.
func TestThreatManyHeaderFields(t *testing.T) {
	h := http.Header{}
	for i := range 2700 {
		h[fmt.Sprint(i)] = []string{""}
	}
	if got := headerSize(h); got < 100*2700 {
		t.Errorf("charged %d bytes", got)
	}
}

// What the log has of a review is bounded, and so are the names that are kept of it.
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
		t.Error("nothing is logged")
	}
	for _, line := range written {
		if len(line) > 16<<10 {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}
