package webhooks

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/workload"
)

// breakGlassAnnotation is the key, below the name of the webhook, of the audit annotation on what
// only break-glass admitted.
const breakGlassAnnotation = "break-glass"

// maxNote bounds the note of an event, in bytes. The API server takes 1024.
const maxNote = 1000

// maxReason is how long the value of a label can be, in bytes.
const maxReason = 63

// unlessBreakGlass answers with the denial, unless the namespace is labelled for break-glass. What
// is then let in is warned of, logged, counted and recorded in an event. A dry run lets nothing in,
// so it leaves no count and no event.
func (g *Gate) unlessBreakGlass(ctx context.Context, req admission.Request, r review, ruled ruling) admission.Response {
	reason, hint := g.breakGlass(ctx, req.Namespace)
	if reason == "" {
		return ruled.deny(ctx, hint)
	}
	g.record(ctx, req, r, reason, ruled)
	first := fmt.Sprintf("break-glass is on in namespace %q (%s): admitted what would be denied", req.Namespace, reason)
	ruled.warnings = append(ruled.denials, ruled.warnings...)
	resp := ruled.admit(ctx, maxWarnings-len(first)-len("\n"))
	resp.Warnings = append([]string{first}, resp.Warnings...)
	resp.AuditAnnotations[breakGlassAnnotation] = "reason " + reason + "\n" + ruled.denial(maxMessage)
	return resp
}

// How many admissions by break-glass are recorded one by one, in an event and in the log. Anybody
// who reaches the port can have some recorded that never were, so each client has a pace of its
// own, by which it cannot use up what another one has.
const (
	recordsOfClient, recordsOfNamespace           = 60, 240
	recordsOfClientEvery, recordsOfNamespaceEvery = 10 * time.Second, 2 * time.Second
)

// records paces what is recorded.
type records struct{ ofClient, ofNamespace pace }

func newRecords() *records {
	return &records{
		ofClient:    pace{burst: recordsOfClient, every: recordsOfClientEvery},
		ofNamespace: pace{burst: recordsOfNamespace, every: recordsOfNamespaceEvery},
	}
}

// take says whether one more admission is recorded in a namespace, and if not, whether it is the
// first one that is not.
func (rs *records) take(namespace, client string, dryRun bool, now time.Time) (ok, first bool) {
	if dryRun {
		namespace = "dry run in " + namespace // which must not use up what is for others
	}
	if ok, first = rs.ofClient.take(namespace+" "+client, now); ok {
		ok, first = rs.ofNamespace.take(namespace, now)
	}
	return ok, first
}

// record counts an admission by break-glass, and records it in the log and an event, or says once
// that there are too many for that.
func (g *Gate) record(ctx context.Context, req admission.Request, r review, reason string, ruled ruling) {
	log, dryRun := logf.FromContext(ctx), ptr.Deref(req.DryRun, false)
	if !dryRun {
		g.Metrics.BreakGlass(req.Namespace)
	}
	ok, first := g.records().take(req.Namespace, clientOf(ctx), dryRun, g.Clock.Now())
	if !ok && !dryRun {
		g.Metrics.BreakGlassUnrecorded(req.Namespace)
	}
	switch {
	case ok:
		log.Info("Admitted by break-glass what would be denied", "reason", reason, "dryRun", dryRun, "denial",
			ruled.denial(maxMessage))
		if !dryRun {
			g.Events.Eventf(regarding(req, r), nil, corev1.EventTypeWarning, v1alpha1.ReasonBreakGlass,
				action(reason, r.images), "%s",
				text.Cut(
					fmt.Sprintf("break-glass (%s) let in what would be denied: %s", reason, ruled.denial(maxMessage)),
					maxNote))
		}
	case first:
		log.Info(
			"Admits more by break-glass than is recorded one by one; the audit log of the API server and the metrics "+
				"have all", "dryRun", dryRun)
		if !dryRun {
			g.Events.Eventf(regarding(req, r), nil, corev1.EventTypeWarning, v1alpha1.ReasonBreakGlass, "Omit",
				"break-glass (%s) lets in more, from this one on, than is recorded in events one by one; the audit "+
					"log of the API server and the metrics have all", reason)
		}
	}
}

// records returns the pace of what is recorded.
func (g *Gate) records() *records {
	g.recordsOnce.Do(func() { g.recorded = newRecords() })
	return g.recorded
}

// breakGlass returns the reason for which break-glass is on in a namespace, empty where it is not,
// and then a hint where the user needs one. The label is looked for in the cache first, so that
// denials cost the API server nothing, and then read live: a cache that lags behind must not keep
// open what was shut.
func (g *Gate) breakGlass(ctx context.Context, namespace string) (reason, hint string) {
	ctx, cancel := context.WithTimeout(ctx, confirmDeadline)
	defer cancel()
	cached, err := g.namespaceLabels(ctx, namespace)
	if err != nil {
		return "", "" // and the denial says why
	}
	if _, labelled := cached[v1alpha1.LabelBreakGlass]; !labelled {
		return "", ""
	}
	var live corev1.Namespace
	if err := g.LiveNamespaces.Get(ctx, types.NamespacedName{Name: namespace}, &live); err != nil {
		return "", text.Cut(
			fmt.Sprintf("break-glass could not be confirmed: reading namespace %q: %v; try again", namespace, err),
			maxLine)
	}
	reason, labelled := live.Labels[v1alpha1.LabelBreakGlass]
	if labelled && reason == "" {
		hint = fmt.Sprintf("break-glass is not on: label %s of namespace %q needs a reason as its value",
			v1alpha1.LabelBreakGlass, namespace)
	}
	return reason, hint
}

// action names what break-glass did, for an event: why it was on and a hash of the images that came
// in. Events that are alike but for their note are merged, and only the first note is kept; this
// keeps two uses on one object apart. The API server takes 128 bytes.
func action(reason string, images []workload.Image) string {
	refs := make([]string, 0, len(images))
	for _, i := range images {
		refs = append(refs, strconv.Quote(i.Image))
	}
	slices.Sort(refs)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(refs), " ")))
	return fmt.Sprintf("Admit/%s/%x", text.Cut(reason, maxReason), sum[:8])
}

// regarding refers to the workload of a request, by the UID that the API server has given it before
// it asks: kubectl describe shows no event without.
func regarding(req admission.Request, r review) *corev1.ObjectReference {
	version := schema.GroupVersion{Group: req.Kind.Group, Version: req.Kind.Version}
	return &corev1.ObjectReference{
		APIVersion: version.String(), Kind: req.Kind.Kind, Namespace: req.Namespace, Name: r.name(req),
		UID: types.UID(r.object.UID),
	}
}
