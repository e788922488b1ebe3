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

// breakGlassAnnotation is the key, after the name of the webhook, of the audit annotation on a
// request that only break-glass admitted.
const breakGlassAnnotation = "break-glass"

// maxNote is the maximum length of the note of an event, in bytes. The API server allows 1024.
const maxNote = 1000

// maxReason is the maximum length of a label's value, in bytes.
const maxReason = 63

// denyUnlessBreakGlass returns a denial, unless break-glass is on in the namespace. It then admits,
// warns the client, logs, counts, and records an event. A dry run admits nothing for real, so it is
// not counted and raises no event.
func (g *Gate) denyUnlessBreakGlass(ctx context.Context, req admission.Request, r parsedRequest,
	v verdict) admission.Response {
	reason, hint := g.breakGlass(ctx, req.Namespace)
	if reason == "" {
		return v.deny(ctx, hint)
	}
	g.recordBreakGlass(ctx, req, r, reason, v)
	first := fmt.Sprintf("break-glass is on in namespace %q (%s): admitted what would be denied", req.Namespace, reason)
	v.warnings = append(v.denials, v.warnings...)
	resp := v.admit(ctx, maxWarnings-len(first)-len("\n"))
	resp.Warnings = append([]string{first}, resp.Warnings...)
	resp.AuditAnnotations[breakGlassAnnotation] = "reason " + reason + "\n" + v.denial(maxMessage)
	return resp
}

// How many admissions by break-glass are recorded each in an event and a log line: a burst, and one
// more in each interval. A client that reaches the port can send reviews that no API server made.
// So each client has a limit of its own, and cannot use up the limit of another.
const (
	recordsOfClient, recordsOfNamespace               = 60, 240
	recordIntervalOfClient, recordIntervalOfNamespace = 10 * time.Second, 2 * time.Second
)

// recordLimits limit how many admissions by break-glass are recorded.
type recordLimits struct{ ofClient, ofNamespace rateLimiter }

func newRecordLimits() *recordLimits {
	return &recordLimits{
		ofClient:    rateLimiter{burst: recordsOfClient, interval: recordIntervalOfClient},
		ofNamespace: rateLimiter{burst: recordsOfNamespace, interval: recordIntervalOfNamespace},
	}
}

// allow reports whether to record one more admission in a namespace. If not, first says that it is
// the first one in a row that is not recorded.
func (l *recordLimits) allow(namespace, client string, dryRun bool, now time.Time) (ok, first bool) {
	if dryRun {
		namespace = "dry run in " + namespace // a bucket of its own, so that dry runs use up no others
	}
	if ok, first = l.ofClient.allow(namespace+" "+client, now); ok {
		ok, first = l.ofNamespace.allow(namespace, now)
	}
	return ok, first
}

// recordBreakGlass counts an admission by break-glass, and records it in the log and an event.
// Above the limit it says once that further admissions are not recorded.
func (g *Gate) recordBreakGlass(ctx context.Context, req admission.Request, r parsedRequest, reason string,
	v verdict) {
	log, dryRun := logf.FromContext(ctx), ptr.Deref(req.DryRun, false)
	if !dryRun {
		g.Metrics.BreakGlass(req.Namespace)
	}
	ok, first := g.recordLimits().allow(req.Namespace, clientOf(ctx), dryRun, g.Clock.Now())
	if !ok && !dryRun {
		g.Metrics.BreakGlassUnrecorded(req.Namespace)
	}
	switch {
	case ok:
		log.Info("Admitted by break-glass what would be denied", "reason", reason, "dryRun", dryRun, "denial",
			v.denial(maxMessage))
		if !dryRun {
			g.Events.Eventf(regarding(req, r), nil, corev1.EventTypeWarning, v1alpha1.ReasonBreakGlass,
				action(reason, r.images), "%s",
				text.Cut(
					fmt.Sprintf("break-glass (%s) let in what would be denied: %s", reason, v.denial(maxMessage)),
					maxNote))
		}
	case first:
		log.Info(
			"Admitted by break-glass more requests than are logged one by one; the audit log of the API server and "+
				"the metrics have all of them", "dryRun", dryRun)
		if !dryRun {
			g.Events.Eventf(regarding(req, r), nil, corev1.EventTypeWarning, v1alpha1.ReasonBreakGlass, "Omit",
				"break-glass (%s) lets in more requests, from this one on, than are recorded in events one by one; "+
					"the audit log of the API server and the metrics have all of them", reason)
		}
	}
}

// recordLimits returns the limits of what is recorded, and creates them on the first call.
func (g *Gate) recordLimits() *recordLimits {
	g.recordOnce.Do(func() { g.breakGlassLimits = newRecordLimits() })
	return g.breakGlassLimits
}

// breakGlass returns the reason for which break-glass is on in a namespace. The reason is empty if
// it is off, and hint then says what the user must correct, if anything.
//
// It reads the label from the cache first, so that a denial costs the API server no request. If the
// label is there, it reads it live: a stale cache must not keep break-glass on.
func (g *Gate) breakGlass(ctx context.Context, namespace string) (reason, hint string) {
	ctx, cancel := context.WithTimeout(ctx, confirmDeadline)
	defer cancel()
	cached, err := g.namespaceLabels(ctx, namespace)
	if err != nil {
		return "", "" // the denial gives the reason already
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

// action returns the action of a break-glass event: the reason and a hash of the images. Kubernetes
// merges events that differ only in their note, and keeps the first note. The hash keeps two
// admissions of one object apart. The API server allows 128 bytes.
func action(reason string, images []workload.Image) string {
	refs := make([]string, 0, len(images))
	for _, i := range images {
		refs = append(refs, strconv.Quote(i.Image))
	}
	slices.Sort(refs)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(refs), " ")))
	return fmt.Sprintf("Admit/%s/%x", text.Cut(reason, maxReason), sum[:8])
}

// regarding returns a reference to the workload of a request. It has the UID, which the API server
// sets before it calls the webhook: kubectl describe shows no event without it.
func regarding(req admission.Request, r parsedRequest) *corev1.ObjectReference {
	version := schema.GroupVersion{Group: req.Kind.Group, Version: req.Kind.Version}
	return &corev1.ObjectReference{
		APIVersion: version.String(), Kind: req.Kind.Kind, Namespace: req.Namespace, Name: r.name(req),
		UID: types.UID(r.object.UID),
	}
}
