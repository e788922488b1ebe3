package records

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
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
	// pageSize is how many heads are listed from the API server at a time. Each has up to 900 KiB
	// of data.
	pageSize = 10
	// readAttempts is how often a record is read that changes while it is read.
	readAttempts = 5
)

// Saved returns the records that a trust root must know before next replaces published, which is
// nil where there is none. Where published is in use and next has the same epoch, these are the
// records that published refused: the reconciler has restored the others.
func (r *Reconciler) Saved(ctx context.Context, tr *v1alpha1.TrustRoot, published, next *store.Root) store.Saved {
	return func(take func(repository trust.Subject, packed []byte)) error {
		if based, ok := next.Verifier.(trust.Based); ok && based.HasBase() {
			// The others are verified with it.
			if err := r.restoreOne(ctx, tr, next.Epoch, trust.BaseSubject, take); err != nil {
				return err
			}
		}
		if published == nil || published.Verifier == nil || published.Epoch != next.Epoch {
			return r.restoreAll(ctx, tr, next.Epoch, take)
		}
		return r.restoreRefused(ctx, tr, next.Epoch, take)
	}
}

// restoreAll calls take with each record of a trust root and epoch. It lists them from the API
// server, because a cache may be stale. It lists the next page while take verifies one, so that it
// holds two pages at most.
func (r *Reconciler) restoreAll(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string,
	take func(repository trust.Subject, packed []byte)) error {
	listing, cancel := context.WithCancel(ctx)
	defer cancel()
	pages := make(chan []corev1.ConfigMap)
	var g errgroup.Group
	g.Go(func() error {
		defer close(pages)
		return r.listHeads(listing, tr, pages)
	})
	for page := range pages {
		for i := range page {
			if k, _ := recordmap.Of(&page[i]); k.Subject == trust.BaseSubject {
				continue // it was read first, if it is needed
			}
			if err := r.restoreInto(ctx, tr, epoch, &page[i], take); err != nil {
				return err
			}
		}
	}
	return g.Wait()
}

// listHeads sends the heads of the records of a trust root to pages. It returns nil only after it
// has sent all of them.
func (r *Reconciler) listHeads(ctx context.Context, tr *v1alpha1.TrustRoot, pages chan<- []corev1.ConfigMap) error {
	for next := ""; ; {
		heads := &corev1.ConfigMapList{}
		err := r.Live.List(ctx, heads, client.InNamespace(r.Namespace), client.Limit(pageSize), client.Continue(next),
			client.MatchingLabels{recordmap.LabelKind: recordmap.KindHead, recordmap.LabelTrustRoot: string(tr.UID)})
		if err != nil {
			return fmt.Errorf("listing the records of TrustRoot %s: %w", tr.Name, err)
		}
		select {
		case pages <- heads.Items:
		case <-ctx.Done():
			return ctx.Err()
		}
		if next = heads.Continue; next == "" {
			return nil
		}
	}
}

// restoreRefused calls take with the records that the trust root could not use as it was. It reads
// no others: the edit may revoke a key. After an error all of them count as refused still, so that
// a retry reads them again.
func (r *Reconciler) restoreRefused(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string,
	take func(repository trust.Subject, packed []byte)) error {
	refused := r.refused(tr.Name)
	for _, k := range refused {
		if err := r.restoreOne(ctx, tr, epoch, k.Subject, take); err != nil {
			for _, again := range refused {
				r.update(again, func(s *state) { s.refused = true })
			}
			return err
		}
	}
	return nil
}

// restoreOne calls take with the record of one repository, if there is one.
func (r *Reconciler) restoreOne(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string, repository trust.Subject,
	take func(repository trust.Subject, packed []byte)) error {
	head := &corev1.ConfigMap{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: recordmap.Name(tr.UID, repository)}, head)
	if err == nil {
		err = r.restoreInto(ctx, tr, epoch, head, take)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading the record of %s: %w", repository, err)
	}
	return nil
}

// restoreInto restores a record, by its head, under a root that is not in use yet.
func (r *Reconciler) restoreInto(ctx context.Context, tr *v1alpha1.TrustRoot, epoch string, head *corev1.ConfigMap,
	take func(repository trust.Subject, packed []byte)) error {
	k, ok := recordmap.Of(head)
	if !ok || k.Root != tr.Name || head.Name != recordmap.Name(tr.UID, k.Subject) {
		ctrl.LoggerFrom(ctx).Info("Ignored a record that names no repository of its trust root", "configMap", head.Name)
		return nil
	}
	ctx = ctrl.LoggerInto(ctx, withRepository(ctrl.LoggerFrom(ctx), k))
	return r.restore(ctx, k, epoch, head, func(data []byte) error {
		take(k.Subject, data)
		return nil
	})
}

// restore reads a record, by its head, and calls use with its data, unless the record is damaged or
// of another epoch. It is the only way from a ConfigMap into the store. The error is one of the API
// server, or store.ErrReplaced where use returns that; any other error of use is a refusal.
func (r *Reconciler) restore(ctx context.Context, k trust.Key, epoch string, head *corev1.ConfigMap,
	use func(data []byte) error) error {
	got, err := r.read(ctx, head)
	if err != nil {
		return err
	}
	var refusal error
	if got.data != nil && got.Epoch == epoch {
		if refusal = use(got.data); errors.Is(refusal, store.ErrReplaced) {
			return refusal
		}
	}
	r.update(k, func(s *state) {
		s.version, s.damaged, s.refused, s.size = got.version, got.data == nil, false, len(got.data)
	})
	if refusal != nil {
		r.refuse(ctx, k, refusal)
	}
	return nil
}

// refuse notes that the trust root could not use a record. An edit of the trust root restores it
// again.
func (r *Reconciler) refuse(ctx context.Context, k trust.Key, cause error) {
	r.update(k, func(s *state) { s.refused = true })
	ctrl.LoggerFrom(ctx).Info("Could not use the record of a repository", "reason",
		trust.AsFault(cause, v1alpha1.ReasonMetadataInvalid).Reason, "cause", cause.Error())
}

// reading is a record as the API server has it.
type reading struct {
	recordmap.Head
	data    []byte // nil: the record is damaged
	version string
}

// read returns a record by its head. Where another replica writes the record meanwhile, which
// deletes the parts, it reads the record again. The error is one of the API server.
func (r *Reconciler) read(ctx context.Context, head *corev1.ConfigMap) (*reading, error) {
	for attempt := 1; ; attempt++ {
		got, damage, err := r.readOnce(ctx, head)
		if err != nil || damage == nil {
			return got, err
		}
		again := &corev1.ConfigMap{}
		if err := r.Live.Get(ctx, client.ObjectKeyFromObject(head), again); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading record %s: %w", head.Name, err)
		}
		if again.UID == "" || again.ResourceVersion == head.ResourceVersion || attempt == readAttempts {
			ctrl.LoggerFrom(ctx).Error(damage, "Could not read a record; its repository is fetched as at first sight",
				"configMap", head.Name)
			return got, nil
		}
		head = again
	}
}

// readOnce returns a record and its damage.
func (r *Reconciler) readOnce(ctx context.Context, m *corev1.ConfigMap) (got *reading, damage, err error) {
	head, damage := recordmap.ReadHead(m)
	release, err := r.acquire(ctx, &r.reading, int64(head.Bound()))
	if err != nil {
		return nil, nil, err
	}
	defer release()
	parts, err := r.parts(ctx, head)
	if err != nil {
		return nil, nil, err
	}
	got = &reading{Head: head, version: recordVersion(m, objects(parts))}
	if damage == nil {
		got.data, damage = head.Join(m, parts)
	}
	return got, damage, nil
}

// parts returns the further parts of a record from the API server, nil for each that is missing.
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

// versionOf returns the recordVersion of a record in the cache.
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

// objects returns the parts of a record as objects; a missing part is nil.
func objects(parts []*corev1.ConfigMap) []metav1.Object {
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

// recordVersion identifies one state of a record in the API server, whichever replica wrote it.
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
