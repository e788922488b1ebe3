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

// verdict is a manager's response to an AdmissionReview.
type verdict struct {
	Allowed        bool
	Code           int32
	Message, Patch string
}

// review sends one manager an AdmissionReview of the creation of a Pod, as the API server does.
func review(ctx context.Context, m *operator.Manager, path, image string) (verdict, error) {
	p := pod(production, image)
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	raw, err := json.Marshal(p)
	if err != nil {
		return verdict{}, err
	}
	body, err := json.Marshal(admissionreviewv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionreviewv1.AdmissionRequest{
			UID: types.UID("review"), Operation: admissionreviewv1.Create, Namespace: p.Namespace, DryRun: new(true),
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
	var reviewed admissionreviewv1.AdmissionReview
	if err := json.NewDecoder(resp.Body).Decode(&reviewed); err != nil {
		return verdict{}, fmt.Errorf("reading a response with status %s: %w", resp.Status, err)
	}
	if reviewed.Response == nil {
		return verdict{}, fmt.Errorf("no review in a response with status %s", resp.Status)
	}
	v := verdict{Allowed: reviewed.Response.Allowed, Patch: string(reviewed.Response.Patch)}
	if reviewed.Response.Result != nil {
		v.Code, v.Message = reviewed.Response.Result.Code, reviewed.Response.Result.Message
	}
	return v, nil
}

// awaitManagers polls every manager until its verdict on an image is good, and returns the time
// that the slowest took.
func awaitManagers(t *testing.T, managers []*operator.Manager, image, what string,
	good func(verdict) bool) time.Duration {
	t.Helper()
	from := time.Now()
	done := make(chan error, len(managers))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, m := range managers {
		go func() {
			var last error
			tick := time.NewTicker(20 * time.Millisecond) // leaves the managers time for their own work
			defer tick.Stop()
			for ; ; <-tick.C {
				got, err := review(ctx, m, webhooks.ValidatePath, image)
				switch {
				case ctx.Err() != nil:
					done <- fmt.Errorf("last response of %s: %w", m.WebhookURL, last)
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
			t.Errorf("waiting for %s on %s: %v", what, image, err)
		}
	}
	return time.Since(from)
}
