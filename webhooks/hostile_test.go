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
	"net/http/httptrace"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	admissionv1 "k8s.io/api/admission/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/port"
	"github.com/countersign-dev/countersign/internal/testenv"
	"github.com/countersign-dev/countersign/internal/trust"
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
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// review posts a review to the gate as an API server does, which tries again where it is told to, within 10 s. It returns how often it was refused.
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

// post sends a body, and returns the answer. A body that is nil stalls after 1000 bytes.
func (s *running) post(t *testing.T, client *http.Client, body io.Reader) (code int, answer []byte) {
	t.Helper()
	once, enough := context.WithCancel(t.Context())
	defer enough()
	if body == nil {
		body = &stalled{1000, once}
	}
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
	enough()
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

// stall has a number of bodies stall, of which all but the last byte is sent, and sends each again as soon as it is refused, until it is told to stop.
func (s *running) stall(t *testing.T, address string, overHTTP2 bool, bodies, size int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for client := s.from(t, address, overHTTP2); bodies > 0; bodies-- {
		all.Go(func() {
			tick := time.NewTicker(time.Second) // the pace of Retry-After: it is not the machine's speed at handshakes that is tested
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				once, enough := context.WithCancel(ctx)
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+ValidatePath, &stalled{size - 1, once})
				if err != nil {
					enough()
					t.Error(err)
					return
				}
				r.ContentLength = int64(size)
				r.Header.Set("Content-Type", "application/json")
				resp, err := client.Do(r)
				enough()
				if err == nil {
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

// Bodies that stall, small and large, take no more than the budget. Reviews from another address are answered in between without being
// refused once; from the same address the small ones are, for the large ones nobody can tell them apart.
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
			server := s.from(t, neighbour, true)
			refused := 0
			for range 10 {
				refused += s.answered(t, server)
			}
			if c.address == stranger {
				large := object("Deployment", pinned)
				large.SetAnnotations(map[string]string{"notes": strings.Repeat("x", 1<<20)})
				got, again := s.review(t, server, request{kind: "Deployment", object: large})
				wantAdmitted(t, got)
				if refused+again > 0 {
					t.Errorf("refused %d times because of another client, and the large review %d times", refused, again)
				}
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
	for _, overHTTP2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", overHTTP2), func(t *testing.T) {
			t.Parallel() // it takes the time that a body may take
			s, b := runGate(t, nil)
			code, body := s.post(t, s.from(t, stranger, overHTTP2), nil)
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

// shake opens a connection from an address and shakes hands, for one protocol.
func (s *running) shake(t *testing.T, address, protocol string) *tls.Conn {
	t.Helper()
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}},
		Config:    &tls.Config{RootCAs: s.ca.Pool(), MinVersion: tls.VersionTLS12, NextProtos: []string{protocol}},
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	shaken, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("a %T", conn)
	}
	return shaken
}

// Thousands of streams on one connection, each with a body that stalls, are cut down to what a connection may have.
func TestThreatThousandsOfStreams(t *testing.T) {
	const streams = 3000
	s, b := runGate(t, nil)
	conn := s.shake(t, neighbour, "h2")
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	allowed := make(chan uint32, 1)
	refused := make(chan uint32, streams)
	go func() {
		defer close(refused)
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
				refused <- f.StreamID
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
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: ValidatePath},
			{Name: "content-type", Value: "application/json"}, {Name: "x", Value: strings.Repeat("x", 8<<10)},
		} {
			if err := encoder.WriteField(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
			break // the server has had enough
		}
	}
	count := 0
	for range refused {
		if count++; count == 500 {
			break
		}
	}
	if _, err := conn.Write(nil); count < 500 && err == nil {
		t.Errorf("%d of %d streams were refused", count, streams)
	}
	if refused := s.answered(t, s.from(t, neighbour, true)); refused > 0 {
		t.Errorf("a review was refused %d times", refused)
	}
	if taken, most := b.taken(), int64(maxStreams*(requestCost+maxHeader+decodeFactor*firstRead)); taken > most {
		t.Errorf("%d bytes are taken, by %d streams at most", taken, maxStreams)
	}
}

// More connections than one client may have are closed before those that are of use, whatever they do: nothing, half a handshake, or
// half a header.
func TestThreatManyConnections(t *testing.T) {
	const each = 40
	s, _ := runGate(t, func(s *Server) {
		s.conns = port.NewConns(port.ConnLimits{All: 3 * each, Each: each}, port.ConnLimits{All: 8, Each: 4})
	})
	server := s.from(t, neighbour, true)
	if refused := s.answered(t, server); refused > 0 {
		t.Errorf("refused %d times", refused)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(neighbour)}}
	for i := range 3 * each {
		switch i % 4 {
		case 0:
			conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			_, _ = conn.Write([]byte{22, 3, 1}) // the beginning of a handshake
		case 1:
			s.shake(t, neighbour, "h2")
		default:
			_, _ = s.shake(t, neighbour, "http/1.1").Write([]byte("POST / HTTP/1.1\r\n"))
		}
		if i%10 == 0 {
			reused := true
			traced := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
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
	s, _ := runGate(t, nil)
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

// fling posts a body that must not be admitted. The client may be cut off while it sends.
func (s *running) fling(t *testing.T, client *http.Client, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+ValidatePath, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusTooManyRequests && !bytes.Contains(answer, []byte(`"allowed":false`)) {
		t.Errorf("%s %.300s", resp.Status, answer)
	}
}

// Bodies that are short and nested as deep as JSON goes, or full of values, cost no more than the budget, however many come at once.
func TestThreatCostlyBodies(t *testing.T) {
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"7","namespace":"shop","operation":"CREATE","resource":{"version":"v1","resource":"pods"},`
	fill := func(begin, value, end string) string {
		return head + begin + strings.Repeat(value+",", (smallBody-len(head)-len(begin)-len(end))/(len(value)+1)-1) + value + end + "}}"
	}
	for name, body := range map[string]string{
		"deep object": head + `"object":{"spec":{"containers":` + strings.Repeat(`[`, 9990) + strings.Repeat(`]`, 9990) + `}}}}`,
		"deep":        head + `"x":` + strings.Repeat(`{"":`, 9990) + `0` + strings.Repeat(`}`, 9990) + `}}`,
		"groups":      fill(`"userInfo":{"groups":[`, `""`, `]}`),
		"extra":       fill(`"userInfo":{"extra":{`, `"":[]`, `}}`),
		"values":      fill(`"x":[`, `{"":0}`, `]`),
		"containers":  fill(`"object":{"spec":{"containers":[`, `{}`, `]}}`),
		"owners":      fill(`"object":{"metadata":{"ownerReferences":[`, `{}`, `]}}`),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := runGate(t, nil)
			before := inUse()
			var all sync.WaitGroup
			var most atomic.Int64
			for range 60 {
				client := s.from(t, stranger, false)
				all.Go(func() {
					for range 2 {
						s.fling(t, client, body)
					}
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					for used := int64(m.HeapAlloc + m.StackInuse); ; {
						if was := most.Load(); used <= was || most.CompareAndSwap(was, used) {
							return
						}
					}
				})
			}
			s.answered(t, s.from(t, neighbour, true))
			all.Wait()
			t.Logf("%d MiB more in use at most", (most.Load()-int64(before))>>20)
			if grown := most.Load() - int64(before); grown > 128<<20 {
				t.Errorf("%d MiB more in use", grown>>20)
			}
		})
	}
}

// Reviews that wait for a signing server hold no body, so however many there are, others find room.
func TestThreatWaitingForEvidenceTakesNoRoom(t *testing.T) {
	s, b := runGate(t, nil)
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.root.mu.Lock()
	b.root.answer = func(context.Context, string) (trust.Evidence, error) {
		once.Do(func() { close(asked) })
		<-answer
		return usual(), nil
	}
	b.root.mu.Unlock()
	large := object("Deployment", pinned)
	large.SetAnnotations(map[string]string{"notes": strings.Repeat("x", 3<<20)})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		got, _ := s.review(t, s.from(t, neighbour, true), request{kind: "Deployment", object: large})
		wantAdmitted(t, got)
	}()
	<-asked
	if taken := b.taken(); taken < requestCost || taken > requestCost+maxHeader {
		t.Errorf("%d bytes are taken", taken)
	}
	close(answer)
	<-ended
}
