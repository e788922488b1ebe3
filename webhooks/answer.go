package webhooks

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/workload"
)

const (
	// maxMessage bounds a denial, in bytes.
	maxMessage = 8 << 10
	// maxWarnings bounds all warnings together, in bytes. Past 4096 characters the API server cuts
	// each to 256.
	maxWarnings = 4 << 10
	// maxLine bounds one line of either.
	maxLine = 3 << 10
)

// auditAnnotation is the key, below the name of the webhook, of the audit annotation that holds
// what policies in mode Audit would have denied.
const auditAnnotation = "would-deny"

// pins returns the patch for the images that are to name a digest: the one that was verified now,
// or on an update the one that the object has already, where that is admitted too. What the object
// says for itself counts for nothing: anybody may have written it, before there was a policy. Only
// where the API server lets nobody change it, it stays as it is. The warnings name each digest that
// was left for another one, or stays and is not admitted.
func pins(r review, decided decisions) (ops []jsonpatch.Operation, warnings []string) {
	for _, i := range r.images {
		d := decided[i.Image]
		if !pinnedHere(r, d) {
			continue
		}
		old, had := r.pinned[i.Path]
		switch {
		case had && decided[old].Verdict == policy.Admitted:
			ops = append(ops, i.Pin(old))
		case had && r.kind.Fixed():
			ops = append(ops, i.Pin(old))
			warnings = append(warnings, fmt.Sprintf(
				"image %q: stays pinned as %q, which is not admitted now: a %s cannot be changed, and further Pods "+
					"of it are denied; delete it and make it anew",
				i.Image, old, r.kind.Name))
		case tagOnly(d):
			ops = append(ops, i.Pin(d.Image.Pinned(d.Digest)))
			if had {
				warnings = append(warnings, fmt.Sprintf(
					"image %q: was pinned as %q, which is not admitted now; is pinned to %s, which is", i.Image, old,
					d.Digest))
			}
		}
	}
	return ops, warnings
}

// toPin returns what is decided on before anything is pinned: the images of the request, and of the
// old object at most one reference for each, which could stay.
func toPin(r review) []workload.Image {
	images := slices.Clone(r.images)
	for path, old := range r.pinned {
		images = append(images, workload.Image{Path: path, Image: old})
	}
	return images
}

// pinnedHere reports whether policies want the image pinned in an object of this kind.
func pinnedHere(r review, d policy.Decision) bool {
	return d.Pin == v1alpha1.PinAll || d.Pin == v1alpha1.PinPods && r.kind.IsPod()
}

// mustPin reports whether the image may not run as it is written: a runtime would ask the registry
// what the tag means, and could be given something else than what was verified. Templates do not
// run.
func mustPin(r review, d policy.Decision) bool {
	return r.kind.IsPod() && pinnedHere(r, d) && tagOnly(d)
}

// tagOnly reports whether the image was admitted for a digest that it does not name.
func tagOnly(d policy.Decision) bool {
	return d.Verdict == policy.Admitted && d.Digest != "" && d.Image.Digest == ""
}

// ruling is what the decisions on a request come to. Its zero value denies.
type ruling struct {
	admitted bool
	// fault says of a denial that trying again may help: something could not be checked, or is not
	// pinned.
	fault bool
	// denials, warnings and audits are lines, yet to be bounded. warned are those of the warnings
	// that policies in mode Warn gave.
	denials, warnings, warned, audits []string
}

// judge turns the decisions into a ruling. Only an image that is Admitted, and in a Pod names the
// digest that was verified where a policy wants that, passes; a decision that is missing is the
// zero one and denies.
func judge(r review, decided decisions) ruling {
	var ruled ruling
	for _, i := range r.images {
		d := decided[i.Image]
		ruled.warnings, ruled.audits = append(ruled.warnings, d.Warnings...), append(ruled.audits, d.Audits...)
		if failsWarn(d) {
			ruled.warned = append(ruled.warned, d.Warnings...)
		}
		switch {
		case d.Verdict != policy.Admitted:
			ruled.fault = ruled.fault || d.Verdict == policy.CouldNotCheck
			ruled.denials = append(ruled.denials,
				cmp.Or(d.Message, fmt.Sprintf("image %q: no decision was made", i.Image)))
		case mustPin(r, d):
			ruled.fault = true
			ruled.denials = append(ruled.denials,
				fmt.Sprintf("image %q: signed as %s and not pinned to it; try again, or write %s", i.Image, d.Digest,
					d.Image.Pinned(d.Digest)))
		case d.Pin == v1alpha1.PinNone && tagOnly(d):
			ruled.warnings = append(ruled.warnings,
				fmt.Sprintf(
					"image %q: verified as %s and not pinned to it (pinDigests: None): the node asks the registry "+
						"again what the tag means", i.Image, short(d.Digest)))
		}
	}
	ruled.admitted = len(ruled.denials) == 0
	return ruled
}

// failsWarn reports whether the image fails a policy in mode Warn.
func failsWarn(d policy.Decision) bool {
	return slices.ContainsFunc(d.Outcomes, func(o policy.Outcome) bool {
		return o.Mode == v1alpha1.ModeWarn && o.Verdict != policy.Admitted
	})
}

// undecided is the ruling where no image could be decided on.
func undecided(err error) ruling {
	return ruling{fault: true, denials: []string{"the images could not be checked: " + err.Error() + "; try again"}}
}

// admit answers that the workload may run, with room bytes for warnings. What policies in mode Warn
// or Audit would deny is logged: the warnings for the Pods of a controller go to the controller,
// and nobody sees them.
func (ruled ruling) admit(ctx context.Context, room int) admission.Response {
	resp := admission.Allowed("").WithWarnings(bounded(ruled.warnings, room)...)
	resp.AuditAnnotations = map[string]string{}
	for _, line := range bounded(ruled.warned, maxMessage) {
		logf.FromContext(ctx).Info("Admitted what a policy in mode Warn would deny", "denial", line)
	}
	if len(ruled.audits) > 0 {
		audits := bounded(ruled.audits, maxMessage)
		resp.AuditAnnotations[auditAnnotation] = strings.Join(audits, "\n")
		for _, line := range audits {
			logf.FromContext(ctx).Info("Admitted what a policy in mode Audit would deny", "denial", line)
		}
	}
	return resp
}

// deny answers that it may not. A hint, where there is one, comes last.
func (ruled ruling) deny(ctx context.Context, hint string) admission.Response {
	message := ruled.denial(maxMessage - len(hint) - len("\n"))
	if hint != "" {
		message += "\n" + hint
	}
	logf.FromContext(ctx).Info("Denied the workload", "couldNotCheck", ruled.fault, "denial", message)
	if ruled.fault {
		return refusal(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, message)
	}
	return refusal(http.StatusForbidden, metav1.StatusReasonForbidden, message)
}

// denial is the text of a denial within limit bytes.
func (ruled ruling) denial(limit int) string {
	return strings.Join(bounded(ruled.denials, limit), "\n")
}

// unreadable answers an object or request that cannot be understood.
func unreadable(ctx context.Context, err error) admission.Response {
	logf.FromContext(ctx).Info("Denied what cannot be read", "denial", text.Cut(err.Error(), maxLine))
	return refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest,
		bounded([]string{"the images could not be read: " + err.Error()}, maxMessage)[0])
}

// broke answers after a panic.
func broke() admission.Response {
	return refusal(http.StatusInternalServerError, metav1.StatusReasonInternalError,
		"the images could not be checked: the check broke off; look into the operator's log")
}

func refusal(code int32, reason metav1.StatusReason, message string) admission.Response {
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Result: &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message},
	}}
}

// bounded returns the lines sorted, without repetition, and as many as fit into limit bytes; the
// last then counts the others.
func bounded(lines []string, limit int) []string {
	lines = slices.Clone(lines)
	slices.Sort(lines)
	lines = slices.Compact(lines)
	fit, size, whole := 0, 0, true
	for n, line := range lines {
		lines[n] = text.Cut(line, maxLine)
		size += len(lines[n]) + len("\n")
		if size <= limit-len("and 1000000 more") {
			fit = n + 1
		}
		whole = size <= limit
	}
	if whole {
		return lines
	}
	return append(lines[:fit], fmt.Sprintf("and %d more", len(lines)-fit))
}

// short is a digest as texts show it.
func short(digest string) string { return text.Cut(digest, len("sha256:")+8+len("...")) }
