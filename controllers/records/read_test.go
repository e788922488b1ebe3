package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/trust"
)

// paged is a client that lists page by page. It fails to list a page, or to get any object.
type paged struct {
	client.Client
	pages, failing int // the page that fails; 0: none
	gets           bool
}

var errPaged = errors.New("connection refused")

func (p *paged) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if p.pages++; p.pages == p.failing {
		return errPaged
	}
	return p.Client.List(ctx, list, options...)
}

func (p *paged) Get(ctx context.Context, key client.ObjectKey, into client.Object,
	options ...client.GetOption) error {
	if p.gets {
		return errPaged
	}
	return p.Client.Get(ctx, key, into, options...)
}

// All records are restored, or the result is an error: a missing record would permit a rollback.
func TestEveryPageOfRecordsIsRestored(t *testing.T) {
	const records = 3*pageSize + 1
	plane := controlplane.Run(t)
	tr := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1"}}
	create := func(repository string, size int) {
		h := recordmap.Head{Root: "acme", UID: "1", Repository: repository, Epoch: "1", Used: time.Now()}
		head, parts, err := recordmap.Encode("default", h, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(parts, head) {
			m.OwnerReferences = nil // the API server of the test has no such object
			plane.Make(t, m)
		}
	}
	for i := range records - 1 {
		create(fmt.Sprintf("registry.example.com/shop/%d", i), 10)
	}
	create("registry.example.com/shop/large", 1000<<10)
	for name, test := range map[string]struct {
		live  *paged
		fails bool
	}{
		"all":                    {&paged{}, false},
		"a page is not listed":   {&paged{failing: 3}, true},
		"the first is not":       {&paged{failing: 1}, true},
		"a part cannot be read":  {&paged{gets: true}, true},
		"the last is not listed": {&paged{failing: 4}, true},
	} {
		t.Run(name, func(t *testing.T) {
			test.live.Client = plane
			r := &Reconciler{Live: test.live, Namespace: corev1.NamespaceDefault}
			taken := map[trust.Subject]bool{}
			err := r.restoreAll(t.Context(), tr, "1", func(k trust.Subject, _ []byte) { taken[k] = true })
			if test.fails != errors.Is(err, errPaged) || !test.fails && (err != nil || len(taken) != records) {
				t.Errorf("got %d records and error %v, want an error: %t, else %d records", len(taken), err, test.fails,
					records)
			}
		})
	}
}

// baseRoot is a trust root that may have a base.
type baseRoot struct {
	press
	without bool
}

func (b *baseRoot) HasBase() bool { return !b.without }

func (b *baseRoot) WithBase(trust.Evidence, *trust.Fault) trust.Root { return b }

// The record of the base of a trust root is read first: the others are verified with it. A trust
// root without a base does not read it.
func TestRecordOfTheBaseIsReadFirst(t *testing.T) {
	plane := controlplane.Run(t)
	tr := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1"}}
	for i := range 2*pageSize + 1 {
		about := trust.Subject{Repository: fmt.Sprintf("registry.example.com/shop/%d", i)}
		if i == pageSize {
			about = trust.BaseSubject
		}
		h := recordmap.Head{Root: "acme", UID: "1", Repository: about.Repository, Epoch: "1", Used: time.Now()}
		head, _, err := recordmap.Encode("default", h, []byte(about.Repository))
		if err != nil {
			t.Fatal(err)
		}
		head.OwnerReferences = nil // the API server of the test has no such object
		plane.Make(t, head)
	}
	r := &Reconciler{Live: plane, Namespace: corev1.NamespaceDefault}
	read := func(published, next *store.Root) (order []trust.Subject) {
		t.Helper()
		err := r.Saved(t.Context(), tr, published, next)(func(about trust.Subject, packed []byte) {
			if about.Repository != string(packed) {
				t.Errorf("got the data %q with %s", packed, about)
			}
			order = append(order, about)
		})
		if err != nil {
			t.Fatal(err)
		}
		return order
	}
	based := &store.Root{Verifier: &baseRoot{}, Epoch: "1"}
	got := read(nil, based)
	if len(got) != 2*pageSize+1 || got[0] != trust.BaseSubject || slices.Contains(got[1:], trust.BaseSubject) {
		t.Errorf("got the records of %v, want that of the base first, and each once", got)
	}
	if got := read(based, based); len(got) != 1 || got[0] != trust.BaseSubject {
		t.Errorf("got the records of %v after an edit, want that of the base alone", got)
	}
	if got := read(nil, &store.Root{Verifier: &baseRoot{without: true}, Epoch: "1"}); len(got) != 2*pageSize ||
		slices.Contains(got, trust.BaseSubject) {
		t.Errorf("got the records of %v, want all but that of the base", got)
	}
}
