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
	floorPath = "/floor"
	// turn is how long one of the two handlers is asked at a stretch, and rounds how often they
	// take turns.
	turn, rounds = 400 * time.Millisecond, 5
)

// cached reads Namespaces as a cache does: each reader has a copy of its own.
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

// gate is the gate over an estate, as the manager has it.
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

// floor decodes the review, looks its namespace up, and answers with a patch: no less can be done
// by any handler.
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

// serve serves the gate and the floor by one server, made as the manager makes its own, and returns
// its address.
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

// BenchmarkHandler compares the handlers with the floor, over HTTPS, by turns in the same run.
// "rate" is the share of the floor's requests per second, "cpu" the processor time of one request
// in that of the floor's; the load comes from another process, whose time is not counted. Its time
// is in the rates, though, of both alike, for the machine is one.
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
	mutate, validate := newGenerator(b, ca.PEM, tagged), newGenerator(b, ca.PEM, pinned)
	for _, clients := range []int{1, 8, 32, 64} {
		b.Run(fmt.Sprintf("mutate/clients=%d", clients), func(b *testing.B) {
			compare(b, mutate, order{Clients: clients, For: turn}, url, webhooks.MutatePath, len(tagged[0]))
		})
	}
	b.Run("validate/clients=32", func(b *testing.B) {
		compare(b, validate, order{Clients: 32, For: turn}, url, webhooks.ValidatePath, len(pinned[0]))
	})
	b.Run("mutate-http1/clients=32", func(b *testing.B) {
		compare(b, mutate, order{Clients: 32, For: turn, HTTP1: true}, url, webhooks.MutatePath, len(tagged[0]))
	})
}

// side is what was measured of one handler, a turn each.
type side struct{ rates, cpu []float64 }

func (s *side) turn(b *testing.B, g *generator, o order) {
	b.Helper()
	before := processorTime(b)
	r := g.do(b, o)
	s.cpu = append(s.cpu, float64(processorTime(b)-before)/float64(r.Requests))
	s.rates = append(s.rates, float64(r.Requests)/r.Took.Seconds())
}

func compare(b *testing.B, g *generator, o order, url, path string, size int) {
	b.Helper()
	ours, least := o, o
	ours.URL, least.URL = url+path, url+floorPath
	g.do(b, ours) // connections are made, and buffers grown
	g.do(b, least)
	var gate, floor side
	for b.Loop() {
		for range rounds {
			floor.turn(b, g, least)
			gate.turn(b, g, ours)
			gate.turn(b, g, ours)
			floor.turn(b, g, least)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size), "B/review")
	b.ReportMetric(median(gate.rates), "requests/s")
	b.ReportMetric(median(floor.rates), "floor-requests/s")
	b.ReportMetric(100*median(gate.rates)/median(floor.rates), "%/rate")
	b.ReportMetric(median(gate.cpu), "cpu-ns/request")
	b.ReportMetric(median(floor.cpu), "floor-cpu-ns/request")
	b.ReportMetric(median(gate.cpu)/median(floor.cpu), "x/cpu")
}

// processorTime is what this process has used of the processors.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
