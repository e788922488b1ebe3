package webhooks

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A thousand containers and a review of 3 MiB are decided like any other request. A larger review
// is refused with 413.
func TestLargeRequests(t *testing.T) {
	many := func(image func(int) string) []string {
		var images []string
		for i := range 1000 {
			images = append(images, image(i))
		}
		return images
	}
	b := newBench(t)
	stored, got := b.admit(t, request{kind: "Pod", object: object("Pod", many(func(int) string { return signed })...)})
	wantAdmitted(t, got)
	var pod corev1.Pod
	if err := json.Unmarshal(stored, &pod); err != nil {
		t.Fatal(err)
	}
	for i, c := range pod.Spec.Containers {
		if c.Image != pinned {
			t.Fatalf("container %d: got %q, want %q", i, c.Image, pinned)
		}
	}

	_, got = b.admit(t, request{
		kind: "Pod", object: object("Pod", many(func(i int) string { return fmt.Sprintf("%s:v%d", repository, i) })...),
	})
	wantDenied(t, got, 403, "\nand ", " more")
	if n := len(got.Result.Message); n > maxMessage {
		t.Errorf("got a message of %d bytes, want at most %d", n, maxMessage)
	}
	if n := b.root.count(); n > 3 {
		t.Errorf("got %d fetches of one repository, want at most 3", n)
	}

	last := append(many(func(int) string { return pinned }), unsigned)
	_, got = b.admit(t, request{kind: "Pod", object: object("Pod", last...)})
	wantDenied(t, got, 403, unsigned)

	for image, code := range map[string]int32{pinned: 0, unsigned: 403} {
		large := object("Deployment", image)
		large.SetAnnotations(map[string]string{"notes": strings.Repeat("x", 3<<20)})
		_, got = b.admit(t, request{kind: "Deployment", object: large})
		if code == 0 {
			wantAdmitted(t, got)
		} else {
			wantDenied(t, got, code, "has not signed")
		}
	}
	huge := object("Deployment", elsewhere)
	huge.SetAnnotations(map[string]string{"notes": strings.Repeat("x", 8<<20)})
	if got = b.validate(t, request{kind: "Deployment", object: huge}); got.Allowed || got.Result.Code != 413 {
		t.Errorf("8 MiB: got allowed %t, %+v, want a denial with 413", got.Allowed, got.Result)
	}
	_, got = b.admit(t, request{kind: "Deployment", object: object("Deployment", strings.Repeat("x", 3<<20))})
	wantDenied(t, got, 403, "cannot be read")
}
