package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	admissionreviewv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/testenv"
	"github.com/countersign-dev/countersign/webhooks"
)

// answer is what one manager says to one Pod.
type answer struct {
	code    int32 // 200 where it is admitted
	message string
}

// ask has one manager validate the creation of a Pod, as the API server would, without one between them.
func ask(ctx context.Context, m *testenv.Manager, p *corev1.Pod) (answer, error) {
	p = p.DeepCopy()
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(p)
	if err != nil {
		return answer{}, err
	}
	body, err := json.Marshal(admissionreviewv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionreviewv1.AdmissionRequest{
			UID: types.UID("asked"), Operation: admissionreviewv1.Create, Namespace: p.Namespace, DryRun: new(true),
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: raw},
		},
	})
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.WebhookURL+webhooks.ValidatePath, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var review admissionreviewv1.AdmissionReview
	if err := json.NewDecoder(resp.Body).Decode(&review); err != nil {
		return answer{}, fmt.Errorf("reading an answer of status %s: %w", resp.Status, err)
	}
	if review.Response == nil {
		return answer{}, fmt.Errorf("no response in an answer of status %s", resp.Status)
	}
	if review.Response.Allowed {
		return answer{code: http.StatusOK}, nil
	}
	return answer{code: review.Response.Result.Code, message: review.Response.Result.Message}, nil
}

// everyManager polls each manager by itself until its answer about an image is as wanted, and returns how long the last took.
func everyManager(t *testing.T, managers []*testenv.Manager, image, what string, good func(answer) bool) time.Duration {
	t.Helper()
	from := time.Now()
	done := make(chan error, len(managers))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, m := range managers {
		go func() {
			var last answer
			for {
				got, err := ask(ctx, m, pod(production, image))
				switch {
				case ctx.Err() != nil:
					done <- fmt.Errorf("%s says at last %d %s", m.WebhookURL, last.code, last.message)
					return
				case err != nil:
					done <- err
					return
				case good(got):
					done <- nil
					return
				}
				last = got
			}
		}()
	}
	for range managers {
		if err := <-done; err != nil {
			t.Errorf("waiting for %s of %s: %v", what, image, err)
		}
	}
	return time.Since(from)
}
