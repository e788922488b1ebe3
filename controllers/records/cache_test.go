package records

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
)

// The cache of a real manager lists the parts of one record, and none of other ConfigMaps.
func TestCacheListsThePartsOfOneRecord(t *testing.T) {
	plane := controlplane.Run(t)
	var wants [][]string
	var heads []recordmap.Head
	for _, repository := range []string{"registry.example.com/shop/app", "registry.example.com/shop/cart"} {
		h := recordmap.Head{Root: "acme", UID: "1", Repository: repository, Used: time.Now()}
		head, parts, err := recordmap.Encode("default", h, make([]byte, 2500<<10))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range append(parts, head) {
			m.BinaryData, m.OwnerReferences = nil, nil
			plane.Make(t, m)
			if m != head {
				names = append(names, m.Name)
			}
		}
		heads, wants = append(heads, h), append(wants, names)
	}
	plane.Make(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}})
	mgr := plane.NewManager(t, nil, ctrl.Options{})
	c, err := NewCache(t.Context(), mgr, "default")
	if err != nil {
		t.Fatal(err)
	}
	controlplane.Start(t, mgr)
	if !c.WaitForCacheSync(t.Context()) {
		t.Fatal("the cache did not sync")
	}
	for i, h := range heads {
		list := configMapHeads()
		err := c.List(t.Context(), list, client.InNamespace("default"),
			client.MatchingFields{fieldHead: recordmap.Name(h.UID, h.Key().Subject)},
			client.MatchingLabels{recordmap.LabelKind: recordmap.KindPart, recordmap.LabelTrustRoot: string(h.UID)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range list.Items {
			got = append(got, m.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(wants[i]))) {
			t.Errorf("%s: got parts %q, want %q", h.Repository, got, wants[i])
		}
	}
}
