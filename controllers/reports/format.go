package reports

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/report"
)

// crdTerminating is in the API server's error while it deletes a CRD. The reason is Forbidden, as
// for a missing right, and there is no cause: only the text distinguishes the two. If the text
// changes, one more failure is logged.
const crdTerminating = "custom resource definition is terminating"

// formatWriter maintains the reports in one format. One goroutine uses it.
type formatWriter struct {
	*Writer
	format report.Format

	// present says whether the CRD existed at the last probe, at the time probed.
	present bool
	probed  time.Time
	// written has the hash of the last report of each namespace, or zero if only its name is known.
	written map[string][sha256.Size]byte
	renewed time.Time
	// done is the last written result, without the namespaces in refused.
	done *compliance.Result
	// refused are the namespaces whose report the API server refused. Each is retried by itself.
	refused map[string]*refusal

	// The rest describes a failure that concerns all namespaces.
	failure string
	wait    time.Duration
	retryAt time.Time
}

// refusal is an answer of the API server about the report of one namespace.
type refusal struct {
	text    string
	wait    time.Duration
	retryAt time.Time
}

// write writes the reports of all namespaces. A report that the API server refuses does not stop
// the others; it is retried by itself, with a growing backoff. The error concerns all namespaces.
func (f *formatWriter) write(ctx context.Context, found *compliance.Result) error {
	if err := f.probe(ctx); err != nil || !f.present {
		return err
	}
	if err := f.renew(ctx); err != nil || !f.present {
		return err
	}
	now := f.clock.Now()
	if f.done == found && !f.due(now) {
		return nil
	}
	f.done = found
	namespaces := report.ByNamespace(found.Findings)
	names := f.namespacesToWrite(namespaces)
	maps.DeleteFunc(f.refused, func(name string, _ *refusal) bool {
		_, known := slices.BinarySearch(names, name)
		return !known
	})
	before, failures, first := len(f.refused), 0, error(nil)
	for _, namespace := range names {
		if r := f.refused[namespace]; r != nil && now.Before(r.retryAt) {
			continue
		}
		err := f.sync(ctx, namespace, namespaces[namespace])
		if err != nil && !answered(err) {
			f.done = nil
			return err // requests for the others would fail too
		}
		if f.record(namespace, err) {
			if failures++; first == nil {
				first = err
			}
		}
	}
	switch log := ctrl.LoggerFrom(ctx); {
	case failures > 0:
		log.Error(first, "Failed to write reports of namespaces, will retry", "namespaces", failures)
	case before > 0 && len(f.refused) == 0:
		log.Info("Wrote all reports after a refusal")
	}
	return nil
}

// record records whether the report of a namespace was refused. It returns whether the refusal
// differs from the one before.
func (f *formatWriter) record(namespace string, err error) (differs bool) {
	if err == nil {
		delete(f.refused, namespace)
		return false
	}
	r := f.refused[namespace]
	if r == nil {
		r = &refusal{}
		f.refused[namespace] = r
	}
	text := err.Error()
	differs, r.text = r.text != text, text
	r.wait = min(max(2*r.wait, firstRetry), longestRetry)
	r.retryAt = f.clock.Now().Add(r.wait)
	return differs
}

// due reports whether the backoff of any refused namespace has ended.
func (f *formatWriter) due(now time.Time) bool {
	for _, r := range f.refused {
		if !now.Before(r.retryAt) {
			return true
		}
	}
	return false
}

// next returns the time until the next probe for the CRD, or the next retry of a namespace.
func (f *formatWriter) next() time.Duration {
	now, wait := f.clock.Now(), probeInterval
	if left := f.probed.Add(probeInterval).Sub(now); left > 0 {
		wait = left
	}
	for _, r := range f.refused {
		wait = min(wait, max(r.retryAt.Sub(now), 0))
	}
	return wait
}

// namespacesToWrite returns the namespaces that have findings or a report, sorted.
func (f *formatWriter) namespacesToWrite(namespaces map[string][]compliance.Finding) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(namespaces)), maps.Keys(f.written))
	slices.Sort(names)
	return slices.Compact(names)
}

// sync writes or deletes the report of one namespace. If the namespace or the CRD is deleted
// meanwhile, that is no error: the next probe finds out which.
func (f *formatWriter) sync(ctx context.Context, namespace string, findings []compliance.Finding) error {
	if len(findings) == 0 {
		return f.remove(ctx, namespace)
	}
	err := f.apply(ctx, namespace, findings)
	switch {
	case apierrors.IsNotFound(err), err != nil && strings.Contains(err.Error(), crdTerminating):
		f.done, f.probed = nil, time.Time{}
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	}
	return err
}

// probe checks from time to time whether the CRD exists. It requests one small document, and caches
// nothing about a CRD that is deleted or replaced.
func (f *formatWriter) probe(ctx context.Context) error {
	now := f.clock.Now()
	if now.Sub(f.probed) < probeInterval {
		return nil
	}
	version := f.format.GroupVersion().String()
	list, err := f.discovery.ServerResourcesForGroupVersionWithContext(ctx, version)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("checking whether the API has %s of %s: %w", f.format.Resource, version, err)
	}
	present := err == nil &&
		slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == f.format.Resource })
	if present != f.present {
		ctrl.LoggerFrom(ctx).Info("The CRD of a report format was installed or deleted", "installed", present)
		f.renewed = time.Time{}
	}
	f.present, f.probed = present, now
	return nil
}

// renew clears written from time to time, and lists all reports of Countersign. The list includes
// those that an earlier leader wrote for namespaces that have no findings any more.
func (f *formatWriter) renew(ctx context.Context) error {
	now := f.clock.Now()
	if now.Sub(f.renewed) < renewalInterval {
		return nil
	}
	written := make(map[string][sha256.Size]byte)
	options := metav1.ListOptions{LabelSelector: report.ManagedBy + "=" + report.Manager, Limit: 500}
	for {
		list, err := f.reports(metav1.NamespaceAll).List(ctx, options)
		if apierrors.IsNotFound(err) {
			f.present = false
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing the %s of Countersign: %w", f.format.Resource, err)
		}
		for i := range list.Items {
			if o := &list.Items[i]; o.Name == report.Name {
				written[o.Namespace] = [sha256.Size]byte{}
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	f.written, f.renewed, f.done = written, now, nil
	return nil
}

// apply writes the report of a namespace, unless the last one was the same.
func (f *formatWriter) apply(ctx context.Context, namespace string, findings []compliance.Finding) error {
	text, err := report.Build(namespace, findings).JSON(f.format)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(text)
	if f.written[namespace] == hash {
		return nil
	}
	_, err = f.reports(namespace).Patch(ctx, report.Name, types.ApplyPatchType, text,
		metav1.PatchOptions{FieldManager: report.Manager, Force: ptr.To(true)})
	if rejectsMerge(err) {
		// Another client has filled the report until ours no longer fits. The name belongs to
		// Countersign, so delete the report. The next attempt creates it: the API server's cache
		// does not know of the deletion yet.
		if err := f.remove(ctx, namespace); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("applying the report of namespace %s: %w", namespace, err)
	}
	f.written[namespace] = hash
	return nil
}

// remove deletes the report of a namespace in which no policy covers a workload any more.
func (f *formatWriter) remove(ctx context.Context, namespace string) error {
	if err := f.reports(namespace).Delete(ctx, report.Name, metav1.DeleteOptions{}); err != nil &&
		!apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the report of namespace %s: %w", namespace, err)
	}
	delete(f.written, namespace)
	return nil
}

// answered reports whether an error is an answer of the API server. It need not have a reason:
// etcd's refusals have none.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// rejectsMerge reports whether the content of the stored report causes the refusal: merged with
// ours it is invalid or too large. etcd and the API server's client for it report the latter only
// as text.
func rejectsMerge(err error) bool {
	if apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) {
		return true
	}
	return answered(err) &&
		(strings.Contains(err.Error(), "request is too large") || strings.Contains(err.Error(), "larger than max"))
}

func (f *formatWriter) reports(namespace string) metadata.ResourceInterface {
	return f.metadata.Resource(f.format.GroupVersion().WithResource(f.format.Resource)).Namespace(namespace)
}
