package running

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

// compliant returns the status, reason and message of a policy's Compliant condition.
func compliant(s *compliance.Summary) (status metav1.ConditionStatus, reason, message string) {
	switch {
	case s.Violating > 0:
		message = fmt.Sprintf("%d of %d running workloads violate the policy", s.Violating, s.Covered)
		if s.Unchecked > 0 {
			message += fmt.Sprintf(", and %d could not be checked", s.Unchecked)
		}
		return metav1.ConditionFalse, v1alpha1.ReasonViolations, message + examples(s.Findings, policy.Denied)
	case s.Unchecked > 0:
		message = fmt.Sprintf("%d of %d running workloads could not be checked", s.Unchecked, s.Covered)
		return metav1.ConditionUnknown, v1alpha1.ReasonNotAllChecked, message +
			examples(s.Findings, policy.CouldNotCheck)
	case s.Nowhere:
		return metav1.ConditionTrue, v1alpha1.ReasonNothingRuns,
			"no running workload is covered: no namespace matches spec.namespaceSelector, of those that are not " +
				"exempt; compare with 'kubectl get namespaces --show-labels'"
	case s.Covered == 0:
		return metav1.ConditionTrue, v1alpha1.ReasonNothingRuns,
			"no running workload is covered: no image that runs in the namespaces where the policy holds matches " +
				"spec.images, or spec.exceptImages has it"
	}
	return metav1.ConditionTrue, v1alpha1.ReasonAllSigned, allMeet(s.Covered)
}

func allMeet(covered int) string {
	if covered == 1 {
		return "the one running workload that it covers meets the policy"
	}
	return fmt.Sprintf("all %d running workloads that it covers meet the policy", covered)
}

// examples lists the first workloads with a verdict.
func examples(findings []compliance.Finding, verdict policy.Verdict) string {
	const most = 3
	var b strings.Builder
	n := 0
	for i := range findings {
		f := &findings[i]
		if f.Verdict != verdict {
			continue
		}
		if n++; n > most {
			b.WriteString("; ...")
			break
		}
		if n == 1 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%.63s %.63s/%.100s", f.Workload.Kind, f.Workload.Namespace, f.Workload.Name)
		for _, image := range f.Images {
			if image.Verdict == verdict {
				b.WriteString(" (" + short(image) + ")")
				break
			}
		}
	}
	return b.String()
}

// short describes briefly what is wrong with an image. It cuts a digest as denials do, and other
// text so that several images fit into one message.
func short(i compliance.ImageFinding) string {
	image, digest, found := strings.Cut(i.Image, "@")
	image = fmt.Sprintf("%.160s", image)
	if found {
		image += fmt.Sprintf("@%.15s...", digest) // the algorithm, and eight digits
	}
	if i.Verdict != policy.CouldNotCheck && len(i.Missing) > 0 {
		return fmt.Sprintf("%s: not signed by %.160s", image, strings.Join(i.Missing, ", "))
	}
	return fmt.Sprintf("%s: %s", image, i.Reason)
}

// announce records one event for each item, on the owner of its workload.
func (r *Reconciler) announce(ctx context.Context, all []announcement) {
	for _, n := range all {
		f := n.finding
		related := &corev1.ObjectReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "ImagePolicy", Name: f.Policy,
		}
		if len(n.images) == 0 {
			note := fmt.Sprintf("every image meets ImagePolicy %q now", f.Policy)
			r.Status.Events.Eventf(r.owner(ctx, f), related, corev1.EventTypeNormal, v1alpha1.ReasonAllSigned,
				"Evaluate", "%s", status.Cut(note))
			continue
		}
		var texts []string
		for _, image := range n.images {
			texts = append(texts, short(image))
		}
		note := fmt.Sprintf("running in breach of ImagePolicy %q: %s", f.Policy, strings.Join(texts, "; "))
		r.Status.Events.Eventf(r.owner(ctx, f), related, corev1.EventTypeWarning, v1alpha1.ReasonViolations,
			evaluationOf(n.images), "%s", status.Cut(note))
	}
}

// evaluationOf returns the action of an event about images. Other images give another action. The
// recorder merges events that differ only in their note, and keeps the first note.
func evaluationOf(images []compliance.ImageFinding) string {
	h := sha256.New()
	for _, i := range images {
		fmt.Fprintf(h, "%q", i.Image)
	}
	return "Evaluate-" + hex.EncodeToString(h.Sum(nil)[:8])
}

// maxOwner bounds the text of an owner reference, in bytes. The API server accepts any size.
const maxOwner = 1024

// owner returns the object that the event is about: the controller of the Pod's controller, if it
// has one and both can be read, otherwise the Pod's controller.
func (r *Reconciler) owner(ctx context.Context, f *compliance.Finding) *corev1.ObjectReference {
	c := f.Controller
	direct := &corev1.ObjectReference{
		APIVersion: c.APIVersion, Kind: c.Kind, Namespace: f.Workload.Namespace, Name: c.Name, UID: c.UID,
	}
	gk := schema.FromAPIVersionAndKind(c.APIVersion, c.Kind).GroupKind().String()
	if gk != "ReplicaSet.apps" && gk != "Job.batch" && gk != "ReplicationController" {
		return direct
	}
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(schema.FromAPIVersionAndKind(c.APIVersion, c.Kind))
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: f.Workload.Namespace, Name: c.Name}, o)
	if err != nil || o.UID != c.UID {
		return direct
	}
	if top := metav1.GetControllerOfNoCopy(o); top != nil && len(top.APIVersion)+len(top.Kind)+len(top.Name)+
		len(top.UID) <= maxOwner {
		return &corev1.ObjectReference{
			APIVersion: top.APIVersion, Kind: top.Kind, Namespace: f.Workload.Namespace, Name: top.Name, UID: top.UID,
		}
	}
	return direct
}
