package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/workload"
	"github.com/countersign-dev/countersign/webhooks"
)

const (
	floorPath  = "/floor"
	readerPath = "/reader"
	// interval is how long the clients load one handler before the next. In each round every
	// handler has two intervals.
	interval, rounds = 250 * time.Millisecond, 4
)

// cached reads one Namespace like the manager's cache: each reader gets a copy.
type cached struct {
	client.Reader
	namespace *corev1.Namespace
}

func (c cached) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	into, ok := o.(*corev1.Namespace)
	if !ok {
		return fmt.Errorf("%T is not cached", o)
	}
	c.namespace.DeepCopyInto(into)
	return nil
}

// gate returns a gate on the estate, built as in the manager.
func (e *estate) gate() *webhooks.Gate {
	shop := cached{namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{"env": "production", corev1.LabelMetadataName: "shop"},
	}}}
	return &webhooks.Gate{
		Store: e.store, Tracker: e.tracker, Namespaces: shop, LiveNamespaces: shop, Kinds: workload.Builtin(),
		Clock:  clock.RealClock{},
		Events: events.NewFakeRecorder(1), Metrics: metrics.New(prometheus.NewRegistry()),
	}
}

// floor decodes the review, looks up its namespace in a map, and responds with a fixed patch. It is
// the least work of any handler that pins images.
func floor(w http.ResponseWriter, r *http.Request) {
	known := map[string]string{"shop": repositoryName(0) + ":" + tag(0) + "@sha256:" + digestHex(repositoryName(0), 0)}
	body, err := io.ReadAll(r.Body)
	var in admissionv1.AdmissionReview
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in.Response = &admissionv1.AdmissionResponse{
		UID: in.Request.UID, Allowed: true, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
		Patch: fmt.Appendf(nil, `[{"op":"replace","path":"/spec/containers/0/image","value":%q}]`,
			known[in.Request.Namespace]),
	}
	in.Request = nil
	_ = json.NewEncoder(w).Encode(in)
}

// reader reads the body without decoding it, and sends a fixed response. It is the least work of
// any handler. The API server would not accept the response, because it lacks the UID of the
// request.
func reader(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"","allowed":true}}`)
}

// serve serves the gate, floor and reader with one server, built as in the manager. It returns the
// URL.
func serve(b *testing.B, e *estate, ca *tlstest.CA) (url string) {
	b.Helper()
	serving, err := ca.Issue(pkix.Name{CommonName: "countersign"})
	check(b, err)
	port, err := process.FreePort()
	check(b, err)
	server := webhooks.NewServer(webhooks.ServerOptions{
		Port: port, Limits: webhooks.DefaultLimits(),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &serving.TLS, nil },
	})
	e.gate().Register(server.Register)
	server.Register(floorPath, http.HandlerFunc(floor))
	server.Register(readerPath, http.HandlerFunc(reader))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Start(ctx) }()
	b.Cleanup(func() {
		cancel()
		check(b, <-ended)
	})
	poll.Await(b, "the server", func() error { return server.StartedChecker()(nil) })
	return fmt.Sprintf("https://127.0.0.1:%d", port)
}

// BenchmarkHandler compares both handlers of the gate with floor and reader, over HTTPS, with
// several numbers of clients, over HTTP/2 and HTTP/1.1. It alternates between them in one run.
// "rate" is the gate's requests per second in percent of floor's, and "rate-of-reader" in percent
// of reader's. "cpu" is the processor time of one request as a multiple of floor's. The clients are
// another process on the same machine. Their processor time is not counted.
func BenchmarkHandler(b *testing.B) {
	ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard)))
	e := newEstate(b, many)
	ca, err := tlstest.NewCA("bench CA")
	check(b, err)
	var tagged, pinned [][]byte
	for i := range 200 {
		image := e.images[i*5]
		tagged = append(tagged, review(b, image, i))
		pinned = append(pinned, review(b, image+"@sha256:"+digestHex(repositoryName(i*5), i*5%tags), i))
	}
	url := serve(b, e, ca)
	for _, handler := range []struct {
		name, path string
		reviews    [][]byte
	}{{"pinning", webhooks.MutatePath, tagged}, {"gate", webhooks.ValidatePath, pinned}} {
		generator := newGenerator(b, ca.PEM, handler.reviews)
		for _, protocol := range []string{"HTTP2", "HTTP1"} {
			for _, clients := range []int{1, 8, 32, 64} {
				b.Run(fmt.Sprintf("%s/%s/clients=%d", handler.name, protocol, clients), func(b *testing.B) {
					o := order{Clients: clients, For: interval, HTTP1: protocol == "HTTP1"}
					compare(b, generator, o, url, handler.path)
					b.ReportMetric(float64(len(handler.reviews[0])), "B/review")
				})
			}
		}
	}
}

// side holds the measurements of one handler, one for each interval.
type side struct {
	order
	rates, cpu []float64
}

func (s *side) measure(b *testing.B, g *generator) {
	b.Helper()
	before := processorTime(b)
	r := g.do(b, s.order)
	s.cpu = append(s.cpu, float64(processorTime(b)-before)/float64(r.Requests))
	s.rates = append(s.rates, float64(r.Requests)/r.Took.Seconds())
}

func compare(b *testing.B, g *generator, o order, url, path string) {
	b.Helper()
	at := func(path string) *side {
		s := &side{order: o}
		s.URL = url + path
		g.do(b, s.order) // warm up: the first requests open connections and grow buffers
		return s
	}
	gate, floor, reader := at(path), at(floorPath), at(readerPath)
	for b.Loop() {
		for range rounds {
			for _, s := range []*side{floor, gate, reader, reader, gate, floor} {
				s.measure(b, g)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(gate.rates), "requests/s")
	b.ReportMetric(median(floor.rates), "floor-requests/s")
	b.ReportMetric(median(reader.rates), "reader-requests/s")
	b.ReportMetric(100*median(gate.rates)/median(floor.rates), "%/rate")
	b.ReportMetric(100*median(gate.rates)/median(reader.rates), "%/rate-of-reader")
	b.ReportMetric(median(gate.cpu), "cpu-ns/request")
	b.ReportMetric(median(floor.cpu), "floor-cpu-ns/request")
	b.ReportMetric(median(reader.cpu), "reader-cpu-ns/request")
	b.ReportMetric(median(gate.cpu)/median(floor.cpu), "x/cpu")
}

// processorTime returns the processor time that this process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
