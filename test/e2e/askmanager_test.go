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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/webhooks"
)

// verdict is what a manager answers.
type verdict struct {
	Allowed        bool
	Code           int32
	Message, Patch string
}

// ask asks one manager about the creation of a Pod, as the API server would, without one between
// them.
func ask(ctx context.Context, m *operator.Manager, path, image string) (verdict, error) {
	p := pod(production, image)
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(p)
	if err != nil {
		return verdict{}, err
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
		return verdict{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.WebhookURL+path, bytes.NewReader(body))
	if err != nil {
		return verdict{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	resp, err := client.Do(req)
	if err != nil {
		return verdict{}, err
	}
	defer resp.Body.Close()
	var review admissionreviewv1.AdmissionReview
	if err := json.NewDecoder(resp.Body).Decode(&review); err != nil {
		return verdict{}, fmt.Errorf("reading an answer of status %s: %w", resp.Status, err)
	}
	if review.Response == nil {
		return verdict{}, fmt.Errorf("no response in an answer of status %s", resp.Status)
	}
	v := verdict{Allowed: review.Response.Allowed, Patch: string(review.Response.Patch)}
	if review.Response.Result != nil {
		v.Code, v.Message = review.Response.Result.Code, review.Response.Result.Message
	}
	return v, nil
}

// everyManager polls each manager by itself until its answer about an image is as wanted, and
// returns how long the last took.
func everyManager(t *testing.T, managers []*operator.Manager, image, what string,
	good func(verdict) bool) time.Duration {
	t.Helper()
	from := time.Now()
	done := make(chan error, len(managers))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, m := range managers {
		go func() {
			var last error
			tick := time.NewTicker(20 * time.Millisecond) // a pace at which the managers get on with what is waited for
			defer tick.Stop()
			for ; ; <-tick.C {
				got, err := ask(ctx, m, webhooks.ValidatePath, image)
				switch {
				case ctx.Err() != nil:
					done <- fmt.Errorf("the last answer of %s: %w", m.WebhookURL, last)
					return
				case err == nil && good(got):
					done <- nil
					return
				case err == nil:
					err = fmt.Errorf("status %d: %s", got.Code, got.Message)
				}
				last = err
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
