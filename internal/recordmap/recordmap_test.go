package recordmap

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/internal/trust"
)

func bytesOf(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func aHead() Head {
	return Head{
		Root: "acme", UID: "0fe5e7b6-8d8f-4f0c-8d9d-4b4f4a2b7e11", Repository: "registry.example.com/acme/app",
		Epoch: "1",
		Used:  time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	for name, test := range map[string]struct{ size, parts int }{
		"small": {1, 0}, "just one": {maxPart, 0}, "two": {maxPart + 1, 1}, "many": {5*maxPart - 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			data := bytesOf(test.size)
			head, parts, err := Encode("own", aHead(), data)
			if err != nil || len(parts) != test.parts {
				t.Fatalf("Encode gives %d parts, %v; want %d", len(parts), err, test.parts)
			}
			for _, m := range append(parts, head) {
				if n := len(m.BinaryData[dataKey]); n > maxPart {
					t.Errorf("%s holds %d bytes", m.Name, n)
				}
				if len(m.OwnerReferences) != 1 || m.OwnerReferences[0].UID != aHead().UID {
					t.Errorf("%s has owners %v, want the TrustRoot", m.Name, m.OwnerReferences)
				}
			}
			h, err := ReadHead(head)
			if err != nil {
				t.Fatal(err)
			}
			want := aHead()
			want.Digest, want.parts = Digest(data), test.parts+1
			if diff := cmp.Diff(want, h, cmp.AllowUnexported(Head{})); diff != "" {
				t.Errorf("head (-want +got):\n%s", diff)
			}
			var names []string
			for _, p := range parts {
				names = append(names, p.Name)
			}
			if !slices.Equal(names, h.PartNames()) {
				t.Errorf("parts are %q, the head names %q", names, h.PartNames())
			}
			got, err := h.Join(head, parts)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v; want the %d that were written", len(got), err, len(data))
			}
			if again, err := ReadHead(&metav1.PartialObjectMetadata{ObjectMeta: head.ObjectMeta}); err != nil ||
				again != h || len(data) > again.Bound() {
				t.Errorf("without its data, it reads %v, %v", again, err)
			}
		})
	}
	for name, size := range map[string]int{"nothing": 0, "too much": maxPart*maxParts + 1} {
		if _, _, err := Encode("own", aHead(), make([]byte, size)); err == nil {
			t.Errorf("%s: Encode returned no error, want one", name)
		}
	}
}

// A truncated, mixed or manipulated record is not read.
func TestThreatDamagedRecordIsNotRead(t *testing.T) {
	damage := map[string]func(head *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap{
		"a part missing": func(_ *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap { return parts[1:] },
		"out of order": func(_ *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			slices.Reverse(parts)
			return parts
		},
		"a part emptied": func(_ *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			parts[0].BinaryData = nil
			return parts
		},
		"a bit turned": func(head *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			head.BinaryData[dataKey][7] ^= 1
			return parts
		},
		"a part of another": func(_ *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			parts[1] = parts[0]
			return parts
		},
		"another repository's": func(head *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			head.Annotations[annotationRepository] = "registry.example.com/acme/other"
			return parts
		},
		"another root's": func(head *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			head.Labels[LabelTrustRoot] = "other"
			return parts
		},
		"no number of parts": func(head *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			head.Annotations[annotationParts] = "-1"
			return parts
		},
		"no label": func(head *corev1.ConfigMap, parts []*corev1.ConfigMap) []*corev1.ConfigMap {
			delete(head.Labels, LabelKind)
			return parts
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			head, parts, err := Encode("own", aHead(), bytesOf(3*maxPart))
			if err != nil {
				t.Fatal(err)
			}
			parts = spoil(head, parts)
			h, err := ReadHead(head)
			if err == nil {
				_, err = h.Join(head, parts)
			}
			if err == nil {
				t.Error("the record was read, want an error")
			}
		})
	}
}

// The record of all repositories has a name of its own, and is read as such.
func TestRecordOfAllRepositories(t *testing.T) {
	h := Head{Root: "acme", UID: "0fe5e7b6-8d8f-4f0c-8d9d-4b4f4a2b7e11", Shared: true, Used: aHead().Used}
	head, _, err := Encode("own", h, bytesOf(1))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadHead(head)
	if want := (trust.Subject{Shared: true}); err != nil || got.Key().Subject != want {
		t.Errorf("got a record of %+v, %v, want one of %+v", got.Key().Subject, err, want)
	}
	if k, ok := Of(head); !ok || k != got.Key() {
		t.Errorf("got %+v by its annotations, want %+v", k, got.Key())
	}
	delete(head.Annotations, annotationShared)
	if _, err := ReadHead(head); err == nil {
		t.Error("got a record of no repository read, want an error")
	}
	for _, other := range []trust.Subject{{Repository: "shared"}, {Pulled: "registry.example.com/acme/app"}} {
		if Name(h.UID, other) == head.Name {
			t.Errorf("got the same name for %+v, want another", other)
		}
	}
}
