package publication

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxEpoch bounds a value of the annotation that is used as the epoch, in bytes. The digest of a
// longer one is used.
const maxEpoch = 128

// Publisher publishes TrustRoots to the store: it gathers the key material, builds the root,
// restores its records, puts it into the snapshot and resets its refreshes. Nothing else publishes
// or drops a trust root.
type Publisher struct {
	// Reader reads TrustRoots, and the Secrets and ConfigMaps of Namespace, the operator's own.
	Reader    client.Reader
	Namespace string
	// Formats are the formats that a TrustRoot can have.
	Formats []trust.Format
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
	material, err := p.gather(ctx, tr)
	fault, wrong := errors.AsType[*trust.Fault](err)
	if err != nil && !wrong {
		return nil, err
	}
	epoch := epochOf(tr)
	version := fmt.Sprintf("%s/%s/%q", status.Version(tr), materialHash(material, fault), epoch)
	published := p.Store.Load().Root(tr.Name)
	if published != nil && published.Version == version {
		return published, nil
	}
	root := p.build(tr, material, fault)
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

// format returns the format of a TrustRoot; nil: it has no known format.
func (p *Publisher) format(spec *v1alpha1.TrustRootSpec) trust.Format {
	for _, f := range p.Formats {
		if f.Of(spec) {
			return f
		}
	}
	return nil
}

// refers returns every entry of a Secret or ConfigMap that a TrustRoot refers to.
func (p *Publisher) refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	f := p.format(spec)
	if f == nil {
		return nil
	}
	return f.Refers(spec)
}

// materialHash identifies a state of the material, or a fault in gathering it.
func materialHash(m trust.Material, fault *trust.Fault) string {
	h := sha256.New()
	if fault != nil {
		fmt.Fprintf(h, "%q", fault.Error())
	}
	for _, source := range slices.SortedFunc(maps.Keys(m), compareSources) {
		fmt.Fprintf(h, "%q %q", source, m[source])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func compareSources(a, b v1alpha1.KeySource) int {
	return slices.Compare([]string{a.Kind, string(a.Name), a.Key}, []string{b.Kind, string(b.Name), b.Key})
}

// gather reads the material that a TrustRoot refers to. Missing material is a *trust.Fault; any
// other error is one of the API server.
func (p *Publisher) gather(ctx context.Context, tr *v1alpha1.TrustRoot) (trust.Material, error) {
	m := trust.Material{}
	for _, source := range p.refers(&tr.Spec) {
		value, found, err := p.read(ctx, source)
		if err != nil {
			return m, err
		}
		if found {
			m[source.KeySource] = value
		}
	}
	return m, nil
}

// read reads one entry. found is false for an optional entry that the object lacks.
func (p *Publisher) read(ctx context.Context, source trust.Reference) (value string, found bool, err error) {
	key := client.ObjectKey{Namespace: p.Namespace, Name: string(source.Name)}
	switch source.Kind {
	case "Secret":
		var o corev1.Secret
		err = p.Reader.Get(ctx, key, &o)
		var data []byte
		data, found = o.Data[source.Key]
		value = string(data)
	case "ConfigMap":
		var o corev1.ConfigMap
		err = p.Reader.Get(ctx, key, &o)
		value, found = o.Data[source.Key]
	}
	switch {
	case apierrors.IsNotFound(err) && source.Optional: // another entry of the object may do as well
		return "", false, trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s does not exist; the trust root refers to it", source.Kind, key)
	case apierrors.IsNotFound(err):
		return "", false, trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s does not exist; the trust root refers to its entry %q", source.Kind, key, source.Key)
	case err != nil:
		return "", false, fmt.Errorf("reading %s %s: %w", source.Kind, key, err)
	case !found && !source.Optional:
		return "", false, trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s has no entry %q, to which the trust root refers", source.Kind, key, source.Key)
	}
	return value, found, nil
}

// build compiles a TrustRoot and its material. missing is the fault in gathering the material. What
// is wrong is the fault of the result.
func (p *Publisher) build(tr *v1alpha1.TrustRoot, material trust.Material, missing *trust.Fault) store.Root {
	f := p.format(&tr.Spec)
	switch {
	case f == nil:
		return store.Root{
			Fault: trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec: exactly one format must be set: %s",
				p.formatNames()),
		}
	case missing != nil:
		return store.Root{Format: f.Name(), Fault: missing}
	}
	root, err := f.Build(tr, material)
	if err != nil {
		return store.Root{Format: f.Name(), Fault: trust.AsFault(err, v1alpha1.ReasonInvalidSpec)}
	}
	built := store.Root{Format: f.Name(), Verifier: root, ExpiredGrace: tr.Spec.ExpiredGrace.Duration}
	if described, ok := root.(trust.Described); ok {
		built.Fingerprints, built.Notes = described.Fingerprints(), described.Notes()
	}
	return built
}

// formatNames returns the spec fields of the formats, for a message.
func (p *Publisher) formatNames() string {
	names := make([]string, 0, len(p.Formats))
	for _, f := range p.Formats {
		names = append(names, strings.ToLower(f.Name()[:1])+f.Name()[1:])
	}
	return strings.Join(names, ", ")
}
