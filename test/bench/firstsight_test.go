package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/webhooks"
)

const (
	// latency is the delay of each request to the signing server.
	latency = 100 * time.Millisecond
	// herd is the number of Pods that are created at the same time.
	herd = 500
)

// far is a real Notary server with one repository that three delegations have signed. A proxy in
// front of it delays and counts requests.
type far struct {
	*faultproxy.Proxy
	pin   string
	image string
}

func newFar(b *testing.B) *far {
	b.Helper()
	server := notaryserver.Run(b, notaryserver.Options{Signer: true})
	signer := notaryserver.RunClient(b, server)
	name := repositoryName(0)
	_, err := signer.CreateRepository(b.Context(), name, roles()...)
	check(b, err)
	check(b,
		signer.AddHash(b.Context(), name, tag(0), 512, digestHex(name, 0), "targets/ci", "targets/qa",
			"targets/security"))
	pin, err := signer.Root(name)
	check(b, err)
	return &far{Proxy: faultproxy.Run(b, server.URL, server.CA), pin: pin.KeyID, image: name + ":" + tag(0)}
}

// delayed delays every further request and resets the count.
func (f *far) delayed(by time.Duration) {
	f.Set()
	if by > 0 {
		f.Set(faultproxy.Fault{Delay: by})
	}
	f.Reset()
}

// fresh returns an estate without evidence of this server and without a connection to it.
func (f *far) fresh(b *testing.B) *estate {
	b.Helper()
	get, err := registry.New(registry.Config{Server: f.URL, CABundle: string(f.CA.PEM)})
	check(b, err)
	root, err := notary.New(notary.Config{Name: "acme-notary", RootKeyIDs: []string{f.pin}}, get)
	check(b, err)
	e := emptyEstate(b, root, 0)
	e.policy(b, "production", host+"/**")
	return e
}

// BenchmarkFirstSight fetches and verifies a repository of three delegations for the first time,
// from a real Notary server. It alternates between no delay and a delay of 100 ms for each request.
// The difference of the two times, divided by 100 ms, is the number of round trips.
func BenchmarkFirstSight(b *testing.B) {
	f := newFar(b)
	image, err := imageref.Parse(f.image)
	check(b, err)
	sight := func(by time.Duration) (took time.Duration, requests int) {
		e := f.fresh(b)
		f.delayed(by)
		begin := time.Now()
		check(b, e.tracker.Ensure(b.Context(), key(image)))
		took = time.Since(begin)
		check(b, e.decide(f.image, time.Now()))
		return took, len(f.Requests())
	}
	var near, distant []time.Duration
	most := 0
	for b.Loop() {
		for range 5 {
			for _, by := range []time.Duration{0, latency} {
				took, requests := sight(by)
				most = max(most, requests)
				if by == 0 {
					near = append(near, took)
				} else {
					distant = append(distant, took)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(near)), "ms/0ms-away")
	b.ReportMetric(milliseconds(median(distant)), "ms/100ms-away")
	// Compare the fastest of each: other load on the machine delayed these least.
	b.ReportMetric(float64((slices.Min(distant)-slices.Min(near)).Round(latency))/float64(latency), "round-trips")
	b.ReportMetric(float64(most), "requests")
}

// BenchmarkHerd sends 500 Pods of one unknown repository to the gate at the same time, each to both
// handlers. The real Notary server responds after 100 ms, so no Pod finds the repository loaded.
// Every Pod must be admitted.
func BenchmarkHerd(b *testing.B) {
	f := newFar(b)
	var mutate, validate [][]byte
	for i := range herd {
		mutate = append(mutate, review(b, f.image, i))
		validate = append(validate, review(b, f.image+"@sha256:"+digestHex(repositoryName(0), 0), i))
	}
	f.delayed(latency)
	var requests, fetches int
	var times []time.Duration
	for b.Loop() {
		mux := http.NewServeMux()
		f.fresh(b).gate().Register(mux.Handle)
		f.Reset()
		var wg sync.WaitGroup
		failed := make(chan error, herd)
		begin := time.Now()
		for i := range herd {
			wg.Go(func() {
				if err := admitted(mux, webhooks.MutatePath, mutate[i], true); err != nil {
					failed <- err
				} else if err := admitted(mux, webhooks.ValidatePath, validate[i], false); err != nil {
					failed <- err
				}
			})
		}
		wg.Wait()
		times = append(times, time.Since(begin))
		if len(failed) > 0 {
			b.Fatalf("%d of %d Pods were not admitted, the first because of: %v", len(failed), herd, <-failed)
		}
		sent := f.Requests()
		requests = max(requests, len(sent))
		fetches = max(fetches,
			len(slices.DeleteFunc(sent, func(r faultproxy.Request) bool { return !isTimestamp(r.Path) })))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(times)), "ms/herd")
	b.ReportMetric(float64(fetches), "fetches")
	b.ReportMetric(float64(requests), "requests")
}

// admitted sends a review to a handler of the gate. It returns an error unless the handler admits
// the Pod, with a patch if pinned is true and without one otherwise.
func admitted(gate http.Handler, path string, body []byte, pinned bool) error {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	gate.ServeHTTP(w, r)
	var response admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &response); err != nil {
		return err
	}
	if got := response.Response; got == nil || !got.Allowed || pinned != (len(got.Patch) > 0) {
		return fmt.Errorf("%s: got response %s, want it admitted, with a patch: %v", path, w.Body, pinned)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
