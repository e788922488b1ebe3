package records

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// pageSize is how many records are read from the API server at a time. The first part of each
	// comes with it, of up to 900 KiB.
	pageSize = 10
	// readAttempts is how often one is read that is written meanwhile.
	readAttempts = 5
)

// Saved returns what was written down that a trust root is to know before it can be used. While one
// is in use, the records are taken in as they change; those that it could not use it may, now that
// it was edited.
func (r *Reconciler) Saved(ctx context.Context, tr *v1alpha1.TrustRoot, published, next *store.Root) store.Saved {
	return func(take func(repository trust.Subject, packed []byte)) error {
		if published == nil || published.Root == nil || published.Epoch != next.Epoch {
			return r.loadAll(ctx, tr, next.Epoch, take)
		}
		return r.loadRefused(ctx, tr, next.Epoch, take)
	}
}

// loadAll has take called with what was written down of each of a trust root's repositories since
// the versions seen last started anew. It asks the API server itself: a cache may lag behind. What
// is damaged is logged and left out.
func (r *Reconciler) loadAll(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string,
	take func(repository trust.Subject, packed []byte)) error {
	heads := &corev1.ConfigMapList{}
	for {
		err := r.Live.List(ctx, heads, client.InNamespace(r.Namespace), client.Limit(pageSize),
			client.Continue(heads.Continue),
			client.MatchingLabels{recordmap.LabelKind: recordmap.KindHead, recordmap.LabelTrustRoot: string(tr.UID)})
		if err != nil {
			return fmt.Errorf("listing what was written down of TrustRoot %s: %w", tr.Name, err)
		}
		for i := range heads.Items {
			if err := r.load(ctx, tr, epoch, &heads.Items[i], take); err != nil {
				return err
			}
		}
		if heads.Continue == "" {
			return nil
		}
	}
}

// loadRefused is loadAll of the records alone that could not be used under the trust root as it
// was: edited, it is to be given them once more. The edit may revoke a key, so it waits for nothing
// else.
func (r *Reconciler) loadRefused(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string,
	take func(repository trust.Subject, packed []byte)) error {
	for _, k := range r.refused(tr.Name) {
		head := &corev1.ConfigMap{}
		err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: recordmap.Name(tr.UID, k.Subject)}, head)
		if err == nil {
			err = r.load(ctx, tr, epoch, head, take)
		}
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("reading the record of %s: %w", k.Subject, err)
		}
	}
	return nil
}

// load has a record taken, by its head, unless it is damaged or is of other versions.
func (r *Reconciler) load(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string, head *corev1.ConfigMap,
	take func(repository trust.Subject, packed []byte)) error {
	got, err := r.read(ctx, head)
	if err != nil || got.data == nil || got.Epoch != epoch || got.Root != tr.Name {
		return err
	}
	r.note(got.Key(), func(s *state) {
		s.taken, s.damaged, s.refused, s.size = got.version, false, false, len(got.data)
	})
	take(got.Key().Subject, got.data)
	return nil
}

// reading is a record as the API server has it.
type reading struct {
	recordmap.Head
	data    []byte // nil: it is damaged
	version string
}

// read returns a record by its head. One that another replica writes meanwhile, and so takes the
// parts away of what is being read, is read once more. The error is one of the API server's.
func (r *Reconciler) read(ctx context.Context, m *corev1.ConfigMap) (*reading, error) {
	for attempt := 1; ; attempt++ {
		got, damage, err := r.readOnce(ctx, m)
		if err != nil || damage == nil {
			return got, err
		}
		again := &corev1.ConfigMap{}
		if err := r.Live.Get(ctx, client.ObjectKeyFromObject(m), again); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading record %s: %w", m.Name, err)
		}
		if again.UID == "" || again.ResourceVersion == m.ResourceVersion || attempt == readAttempts {
			ctrl.LoggerFrom(ctx).Error(damage,
				"Could not read what was written down of a repository; it is fetched as at first sight", "configMap",
				m.Name)
			return got, nil
		}
		m = again
	}
}

// readOnce returns a record, and what is wrong with it.
func (r *Reconciler) readOnce(ctx context.Context, m *corev1.ConfigMap) (got *reading, damage, err error) {
	head, damage := recordmap.ReadHead(m)
	release, err := r.hold(ctx, &r.reading, int64(head.Bound()))
	if err != nil {
		return nil, nil, err
	}
	defer release()
	parts, err := r.parts(ctx, head)
	if err != nil {
		return nil, nil, err
	}
	got = &reading{Head: head, version: recordVersion(m, inOrder(parts))}
	if damage == nil {
		got.data, damage = head.Join(m, parts)
	}
	return got, damage, nil
}

// parts returns the further parts of a record, nil for each that is missing.
func (r *Reconciler) parts(ctx context.Context, head recordmap.Head) ([]*corev1.ConfigMap, error) {
	var parts []*corev1.ConfigMap
	for _, name := range head.PartNames() {
		part := &corev1.ConfigMap{}
		err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, part)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading a part of a record: %w", err)
		}
		if err != nil {
			part = nil
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// versionOf is recordVersion of a record as the cache has it.
func (r *Reconciler) versionOf(ctx context.Context, m metav1.Object, head recordmap.Head) (string, error) {
	var parts []metav1.Object
	for _, name := range head.PartNames() {
		part := configMapHead()
		err := r.Heads.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, part)
		switch {
		case err == nil:
			parts = append(parts, part)
		case apierrors.IsNotFound(err):
			parts = append(parts, nil)
		default:
			return "", fmt.Errorf("reading a part of a record: %w", err)
		}
	}
	return recordVersion(m, parts), nil
}

// inOrder returns the parts of a record as objects; a part that is missing is nil.
func inOrder(parts []*corev1.ConfigMap) []metav1.Object {
	var all []metav1.Object
	for _, part := range parts {
		if part == nil {
			all = append(all, nil)
		} else {
			all = append(all, part)
		}
	}
	return all
}

// recordVersion tells one state of a record in the API server from any other, whoever wrote it.
func recordVersion(head metav1.Object, parts []metav1.Object) string {
	version := string(head.GetUID()) + " " + head.GetResourceVersion()
	for _, part := range parts {
		version += " "
		if part != nil {
			version += part.GetResourceVersion()
		}
	}
	return version
}
