package publication

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trustroot"
)

// maxEpoch bounds a value of the annotation that is used as the epoch, in bytes. The digest of a
// longer one is used.
const maxEpoch = 128

// Publisher publishes TrustRoots to the store: it gathers the key material, builds the root,
// restores its records, puts it into the snapshot and resets its refreshes. Nothing else publishes
// or drops a trust root.
type Publisher struct {
	// Reader reads TrustRoots.
	Reader client.Reader
	// Builder builds the roots.
	Builder trustroot.Builder
	Store   *store.Store
	Tracker *store.Tracker
	// Records restores the evidence that was recorded before.
	Records Records
}

// Records restores the recorded evidence of repositories.
type Records interface {
	// Saved returns the records that a trust root must know before next replaces published, which
	// is nil where there is none.
	Saved(ctx context.Context, tr *v1alpha1.TrustRoot, published, next *store.Root) store.Saved
	// Published must be called once the trust root is in use, with the faults of the records that
	// it could not use.
	Published(ctx context.Context, tr *v1alpha1.TrustRoot, faults map[trust.Subject]*trust.Fault)
}

// Publish puts a trust root into the store, unless the same version is there already. The error is
// one of the API server, and worth a retry. What is wrong with the trust root itself is the fault
// of the result.
func (p *Publisher) Publish(ctx context.Context, tr *v1alpha1.TrustRoot) (*store.Root, error) {
	material, err := p.Builder.Gather(ctx, tr)
	if err != nil {
		return nil, err
	}
	epoch := epochOf(tr)
	version := fmt.Sprintf("%s/%s/%q", status.Version(tr), material.Hash(), epoch)
	published := p.Store.Load().Root(tr.Name)
	if published != nil && published.Version == version {
		return published, nil
	}
	root := p.Builder.Build(tr, material)
	root.Version, root.UID, root.Epoch = version, tr.UID, epoch
	if published != nil && published.UID != root.UID {
		p.Drop(tr.Name) // a new object under the same name shares nothing with the old one
		published = nil
	}
	faults, err := p.Store.PutRootWith(tr.Name, root, p.Records.Saved(ctx, tr, published, &root),
		func() bool { return p.outdated(ctx, tr) })
	if err != nil {
		return nil, err
	}
	p.Records.Published(ctx, tr, faults)
	p.Tracker.Reset(tr.Name, interval(tr))
	ctrl.LoggerFrom(ctx).Info("Published a trust root", "generation", tr.Generation, "ready", root.Fault == nil)
	if now := p.Store.Load().Root(tr.Name); now != nil && now.Version == version {
		return now, nil // it may have a base
	}
	return &root, nil
}

// Drop removes a trust root and its evidence from the store.
func (p *Publisher) Drop(name string) {
	p.Store.DropRoot(name)
	p.Tracker.Forget(name)
}

// outdated reports whether a trust root was edited or deleted since it was read, or the replica
// ends.
func (p *Publisher) outdated(ctx context.Context, tr *v1alpha1.TrustRoot) bool {
	now := &v1alpha1.TrustRoot{}
	err := p.Reader.Get(ctx, client.ObjectKeyFromObject(tr), now)
	return ctx.Err() != nil || apierrors.IsNotFound(err) || err == nil && status.Version(now) != status.Version(tr)
}

// epochOf returns the epoch of the versions seen: the value of the annotation, or once it was
// removed, the value that was handled last.
func epochOf(tr *v1alpha1.TrustRoot) string {
	value := tr.Annotations[v1alpha1.AnnotationForgetVersions]
	switch {
	case value == "":
		return tr.Status.LastHandledForgetVersions
	case len(value) > maxEpoch || !utf8.ValidString(value):
		sum := sha256.Sum256([]byte(value))
		return hex.EncodeToString(sum[:])
	}
	return value
}

// interval returns how often the repositories of a trust root are refreshed.
func interval(tr *v1alpha1.TrustRoot) time.Duration {
	return cmp.Or(tr.Spec.RefreshInterval.Duration, 5*time.Minute)
}
