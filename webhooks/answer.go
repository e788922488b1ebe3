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
	"github.com/countersign-dev/countersign/internal/decision"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/workload"
)

const (
	// maxMessage is the maximum length of a denial, in bytes.
	maxMessage = 8 << 10
	// maxWarnings is the maximum length of all warnings together, in bytes. Above 4096 characters
	// the API server would cut each warning to 256.
	maxWarnings = 4 << 10
	// maxLine is the maximum length of one line of a denial or warning, in bytes.
	maxLine = 3 << 10
)

// auditAnnotation is the key, after the name of the webhook, of the audit annotation with the
// denials of policies in mode Audit.
const auditAnnotation = "would-deny"

// pinPatch returns the patch that pins images to digests. An image of an update keeps the digest of
// the old object if that is admitted too. Otherwise it is pinned to the digest that was verified
// now.
//
// A digest in the object proves nothing: anyone may have written it before there was a policy. So a
// digest that is not admitted is replaced, except where the API server allows no change. Each
// warning names a digest that was replaced, that stays although it is not admitted, or that an
// older answer about a tag named.
func pinPatch(r parsedRequest, decided decision.Set) (ops []jsonpatch.Operation, warnings []string) {
	for _, i := range r.images {
		d := decided[i.Image]
		if !wantsPin(r, d) {
			continue
		}
		old, had := r.oldPins[i.Path]
		switch {
		case had && decided[old].Verdict == policy.Admitted:
			ops = append(ops, i.Pin(old))
		case had && r.kind.Fixed():
			ops = append(ops, i.Pin(old))
			warnings = append(warnings, fmt.Sprintf(
				"image %q: stays pinned as %q, which is not admitted now: a %s cannot be changed, and further Pods "+
					"of it are denied; delete it and create it again",
				i.Image, old, r.kind.Name))
		case tagOnly(d):
			ops = append(ops, i.Pin(d.Image.Pinned(d.Digest)))
			if d.OlderAnswer != "" { // validation does not see the tag
				warnings = append(warnings, d.OlderAnswer)
			}
			if had {
				warnings = append(warnings, fmt.Sprintf(
					"image %q: was pinned as %q, which is not admitted now; is pinned to %s, which is", i.Image, old,
					d.Digest))
			}
		}
	}
	return ops, warnings
}

// pinCandidates returns the images that pinPatch needs decisions on: the images of the request, and
// for each at most one pinned reference of the old object.
func pinCandidates(r parsedRequest) []workload.Image {
	images := slices.Clone(r.images)
	for path, old := range r.oldPins {
		images = append(images, workload.Image{Path: path, Image: old})
	}
	return images
}

// wantsPin reports whether the policies want the image pinned in an object of this kind.
func wantsPin(r parsedRequest, d policy.Decision) bool {
	return d.Pin == v1alpha1.PinAll || d.Pin == v1alpha1.PinPods && r.kind.IsPod()
}

// mustPin reports whether the image must not run as it is written. A runtime would resolve the tag
// again, and the registry could answer with another digest than the verified one. A template does
// not run.
func mustPin(r parsedRequest, d policy.Decision) bool {
	return r.kind.IsPod() && wantsPin(r, d) && tagOnly(d)
}

// tagOnly reports whether the image was admitted for a digest that its reference does not name.
func tagOnly(d policy.Decision) bool {
	return d.Verdict == policy.Admitted && d.Digest != "" && d.Image.Digest == ""
}

// verdict combines the decisions on all images of a request. Its zero value denies.
type verdict struct {
	admitted bool
	// fault says that a denied request may succeed later: an image could not be checked, or is not
	// pinned.
	fault bool
	// denials, warnings and audits are lines whose total length is not limited yet. warned are the
	// warnings of policies in mode Warn, which are in warnings too.
	denials, warnings, warned, audits []string
}

// combine turns the decisions into a verdict. An image passes only if it is Admitted. In a Pod its
// reference must also name the verified digest, if a policy pins Pods. A missing decision is the
// zero Decision, which denies.
func combine(r parsedRequest, decided decision.Set) verdict {
	var v verdict
	for _, i := range r.images {
		d := decided[i.Image]
		v.warnings, v.audits = append(v.warnings, d.Warnings...), append(v.audits, d.Audits...)
		if failsWarn(d) {
			v.warned = append(v.warned, d.Warnings...)
		}
		switch {
		case d.Verdict != policy.Admitted:
			v.fault = v.fault || d.Verdict == policy.CouldNotCheck
			v.denials = append(v.denials,
				cmp.Or(d.Message, fmt.Sprintf("image %q: no decision was made", i.Image)))
		case mustPin(r, d):
			v.fault = true
			v.denials = append(v.denials,
				fmt.Sprintf("image %q: signed as %s and not pinned to it; try again, or write %s", i.Image, d.Digest,
					d.Image.Pinned(d.Digest)))
		default:
			if w := decision.Unpinned(i.Image, d); w != "" {
				v.warnings = append(v.warnings, w)
			}
		}
	}
	v.admitted = len(v.denials) == 0
	return v
}

// failsWarn reports whether the image fails a policy in mode Warn.
func failsWarn(d policy.Decision) bool {
	return slices.ContainsFunc(d.Outcomes, func(o policy.Outcome) bool {
		return o.Mode == v1alpha1.ModeWarn && o.Verdict != policy.Admitted
	})
}

// undecided is the verdict when no image could be decided on.
func undecided(err error) verdict {
	return verdict{fault: true, denials: []string{"the images could not be checked: " + err.Error() + "; try again"}}
}

// admit returns an answer that admits the workload, with at most limit bytes of warnings. It also
// logs what policies in mode Warn or Audit would deny: the warnings about a Pod mostly reach a
// controller, where no user sees them.
func (v verdict) admit(ctx context.Context, limit int) admission.Response {
	resp := admission.Allowed("").WithWarnings(limitLines(v.warnings, limit)...)
	resp.AuditAnnotations = map[string]string{}
	for _, line := range limitLines(v.warned, maxMessage) {
		logf.FromContext(ctx).Info("Admitted what a policy in mode Warn would deny", "denial", line)
	}
	if len(v.audits) > 0 {
		audits := limitLines(v.audits, maxMessage)
		resp.AuditAnnotations[auditAnnotation] = strings.Join(audits, "\n")
		for _, line := range audits {
			logf.FromContext(ctx).Info("Admitted what a policy in mode Audit would deny", "denial", line)
		}
	}
	return resp
}

// deny returns an answer that denies the workload. A hint that is not empty is its last line.
func (v verdict) deny(ctx context.Context, hint string) admission.Response {
	message := v.denial(maxMessage - len(hint) - len("\n"))
	if hint != "" {
		message += "\n" + hint
	}
	logf.FromContext(ctx).Info("Denied the workload", "couldNotCheck", v.fault, "denial", message)
	if v.fault {
		return refusal(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, message)
	}
	return refusal(http.StatusForbidden, metav1.StatusReasonForbidden, message)
}

// denial returns the text of a denial, at most limit bytes.
func (v verdict) denial(limit int) string {
	return strings.Join(limitLines(v.denials, limit), "\n")
}

// unreadable returns the denial of an object or request that cannot be parsed.
func unreadable(ctx context.Context, err error) admission.Response {
	logf.FromContext(ctx).Info("Denied an object that cannot be read", "denial", text.Cut(err.Error(), maxLine))
	return refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest,
		limitLines([]string{"the images could not be read: " + err.Error()}, maxMessage)[0])
}

// panicked returns the denial after a panic.
func panicked() admission.Response {
	return refusal(http.StatusInternalServerError, metav1.StatusReasonInternalError,
		"the images could not be checked: internal error; look into the operator's log")
}

// refusal returns an answer that denies, with an HTTP code, a reason and a message.
func refusal(code int32, reason metav1.StatusReason, message string) admission.Response {
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Result: &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message},
	}}
}

// limitLines sorts the lines, removes duplicates and returns as many as fit into limit bytes. If
// some do not fit, the last line says how many.
func limitLines(lines []string, limit int) []string {
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
