package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// workloadOf returns an object of a kind, as decoded JSON, with random images in every list.
func workloadOf(r *rand.Rand, kind string) any {
	image := func() string {
		return []string{signed, pinned, elsewhere, signed, pinned, elsewhere, signed, unsigned}[r.IntN(8)]
	}
	spec := corev1.PodSpec{
		NodeName: "node",
		Containers: []corev1.Container{
			{Name: "a", Image: image(), Env: []corev1.EnvVar{{Name: "image", Value: unsigned}}},
		},
	}
	for i := range r.IntN(3) {
		name := fmt.Sprintf("n%d", i)
		spec.Containers = append(spec.Containers, corev1.Container{Name: name, Image: image()})
		spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: name, Image: image()})
		spec.EphemeralContainers = append(spec.EphemeralContainers,
			corev1.EphemeralContainer{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: image()},
			})
		spec.Volumes = append(spec.Volumes, corev1.Volume{
			Name: name, VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image()}},
		})
	}
	inner := encodable(spec)
	for _, key := range slices.Backward(pathOf(kind)[1:]) {
		inner = map[string]any{key: inner}
	}
	meta := map[string]any{"name": "acme", "namespace": "shop", "labels": map[string]any{"image": unsigned}}
	return map[string]any{"kind": kind, "metadata": meta, pathOf(kind)[0]: inner}
}

// pathOf returns the path of the PodSpec of a kind, independently of the table under test.
func pathOf(kind string) []string {
	switch kind {
	case "Pod":
		return []string{"spec"}
	case "PodTemplate":
		return []string{"template", "spec"}
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template", "spec"}
	}
	return []string{"spec", "template", "spec"}
}

// storedSpec returns the PodSpec that the API server decodes from an object: with the types of
// Kubernetes, in full, and not strictly.
func storedSpec(kind string, raw []byte) (spec corev1.PodSpec, err error) {
	read := func(into any) { err = kjson.UnmarshalCaseSensitivePreserveInts(raw, into) }
	switch kind {
	case "Pod":
		var o corev1.Pod
		read(&o)
		return o.Spec, err
	case "PodTemplate":
		var o corev1.PodTemplate
		read(&o)
		return o.Template.Spec, err
	case "CronJob":
		var o batchv1.CronJob
		read(&o)
		return o.Spec.JobTemplate.Spec.Template.Spec, err
	}
	var o struct { // Deployments, Jobs and custom resources have these fields in common
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	read(&o)
	return o.Spec.Template.Spec, err
}

// imagesOf calls visit with a pointer to each image of a PodSpec.
func imagesOf(spec *corev1.PodSpec, visit func(image *string)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i].Image)
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i].Image)
	}
	for i := range spec.EphemeralContainers {
		visit(&spec.EphemeralContainers[i].Image)
	}
	for i := range spec.Volumes {
		if v := spec.Volumes[i].Image; v != nil {
			visit(&v.Reference)
		}
	}
}

// post sends a body unchanged, and returns the answer.
func (b *bench) post(t *testing.T, path string, body []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil ||
		answer.GroupVersionKind() != reviewKind() {
		t.Fatalf("got status %d and %q, %v, want a review", w.Code, w.Body, err)
	}
	return answer.Response
}

// reviewOf returns the review of a create, or of an update from a random object, as decoded JSON.
func reviewOf(t *testing.T, r *rand.Rand, kind string) map[string]any {
	t.Helper()
	req := request{kind: kind, object: workloadOf(r, kind)}
	if r.IntN(3) == 0 {
		req.old = workloadOf(r, kind)
	}
	review, ok := encodable(req.review(t)).(map[string]any)
	if !ok {
		t.Fatal("the review is not a JSON object")
	}
	return review
}

// A review in any spelling gets the same answer as the review that the API server's own decoder and
// types make of it: the same images, pins and messages. A review with a fault may be refused as
// unreadable instead, one without never.
func TestThreatEverySpellingIsReadAsTheAPIServerReadsIt(t *testing.T) {
	b := newBench(t)
	// so that the repository is loaded
	b.post(t, ValidatePath, encode(t, request{kind: "Pod", object: object("Pod", unsigned)}.review(t)))
	counts := map[string]int{}
	for seed := range uint64(3000) {
		s := &speller{Rand: rand.New(rand.NewPCG(seed, 1)), oddness: []int{0, 3, 10, 40}[seed%4]}
		all := kinds(t)
		kind := all[s.IntN(len(all))].Name
		body := s.spell(reviewOf(t, s.Rand, kind))
		validated, mutated := b.post(t, ValidatePath, body), b.post(t, MutatePath, body)
		problem := differs(t, b, kind, body, s.odd > 0, validated, mutated)
		switch {
		case problem == "" && validated.Allowed:
			counts["admitted"]++
		case problem == "" && validated.Result.Code != http.StatusBadRequest:
			counts["denied"]++ // not signed, or not pinned
		case problem == "":
			counts["unreadable"]++
			if s.odd == 0 {
				problem = "a review without a fault was refused: " + validated.Result.Message
			}
		}
		if problem != "" {
			t.Fatalf("seed %d, %s:\n%s\n%s", seed, kind, body, problem)
		}
		if len(mutated.Patch) > 0 {
			counts["pinned"]++
		}
		if s.odd > 0 && (validated.Allowed || validated.Result.Code != http.StatusBadRequest) {
			counts["odd and read"]++
		}
	}
	for _, outcome := range []string{"admitted", "denied", "unreadable", "pinned", "odd and read"} {
		if counts[outcome] < 100 {
			t.Errorf("got %d reviews with the outcome %q, want at least 100: %v", counts[outcome], outcome, counts)
		}
	}
}

// differs returns how the answers to a review differ from those to its canonical form, empty if
// they do not.
func differs(t *testing.T, b *bench, kind string, body []byte, odd bool, validated,
	mutated *admissionv1.AdmissionResponse) string {
	t.Helper()
	whole, ok := decodeWhole(body)
	if !ok {
		if validated.Allowed || validated.Result.Code != http.StatusBadRequest || mutated.Allowed {
			return fmt.Sprintf("an invalid review: got %+v and %+v, want denials with 400", validated, mutated)
		}
		return ""
	}
	if validated.UID != whole.Request.UID || mutated.UID != whole.Request.UID {
		return fmt.Sprintf("got the UIDs %q and %q, want %q", validated.UID, mutated.UID, whole.Request.UID)
	}
	if !mutated.Allowed || !validated.Allowed && !slices.Contains([]int32{400, 403, 503}, validated.Result.Code) {
		return fmt.Sprintf("got %+v and %+v", validated, mutated)
	}
	spec, err := storedSpec(kind, whole.Request.Object.Raw)
	if err != nil || len(spec.Containers) == 0 || !validated.Allowed && validated.Result.Code == http.StatusBadRequest {
		return "" // the API server would have refused the object, or the gate has
	}
	canonical := whole.DeepCopy()
	canonical.Request.Object.Raw = canonicalJSON(t, kind, spec)
	if old, err := storedSpec(kind, whole.Request.OldObject.Raw); err == nil &&
		whole.Request.Operation == admissionv1.Update {
		canonical.Request.OldObject.Raw = canonicalJSON(t, kind, old)
	}
	want := b.post(t, ValidatePath, encode(t, canonical))
	if odd && whole.Request.Operation == admissionv1.Update && want.Allowed && !validated.Allowed {
		return "" // the gate does not use an old object with a fault
	}
	if diff := cmp.Diff(want, validated); diff != "" {
		return "validation (-canonical +got):\n" + diff
	}
	if diff := cmp.Diff(b.post(t, MutatePath, encode(t, canonical)), mutated); diff != "" {
		return "mutation (-canonical +got):\n" + diff
	}
	return pinsOnly(t, kind, whole.Request, spec, validated.Allowed, mutated.Patch)
}

// canonicalJSON encodes an object with a PodSpec as the API server would.
func canonicalJSON(t *testing.T, kind string, spec corev1.PodSpec) []byte {
	t.Helper()
	inner := any(spec)
	for _, key := range slices.Backward(pathOf(kind)) {
		inner = map[string]any{key: inner}
	}
	return encode(t, inner)
}

// pinsOnly returns what a patch changes besides pins. It fails the test for an admitted image that
// must not run.
func pinsOnly(t *testing.T, kind string, r *admissionv1.AdmissionRequest, want corev1.PodSpec, admitted bool,
	patch []byte) string {
	t.Helper()
	if r.Operation == admissionv1.Create {
		imagesOf(&want, func(image *string) {
			covered, fine := strings.HasPrefix(*image, repository), *image == pinned || *image == signed &&
				kind != "Pod"
			if admitted && covered && !fine {
				t.Errorf("got an admission with %q, want a denial", *image)
			}
			if strings.HasPrefix(*image, "registry.example.com/acme/") && strings.HasSuffix(*image, ":signed") &&
				kind == "Pod" {
				*image += "@" + digestA // a changed byte may have made this another repository
			}
		})
	}
	if len(patch) == 0 || r.Operation != admissionv1.Create {
		return ""
	}
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return err.Error()
	}
	patched, err := operations.Apply(r.Object.Raw)
	if err != nil {
		return fmt.Sprintf("applying %s: %v", patch, err)
	}
	got, err := storedSpec(kind, patched)
	if err != nil {
		return err.Error()
	}
	return cmp.Diff(want, got)
}
