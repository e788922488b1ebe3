// Package gatecheck checks the gate of a cluster as a user sees it. It requests a Pod that an
// ImagePolicy denies, and one that the policy does not cover. Both requests are dry runs, so that
// nothing is created or changed. The check proves that the API server calls the gate and that the
// gate decides. It does not check signing servers.
package gatecheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// The images of the Pods. Hosts under .invalid do not exist (RFC 6761), so neither image can run.
const (
	// DeniedImage is an image that the policy covers.
	DeniedImage = "countersign.invalid/denied:test"
	// AdmittedImage is an image that the policy does not cover.
	AdmittedImage = "countersign.invalid/admitted:test"
)

// Creator creates Pods in one namespace.
type Creator interface {
	Create(ctx context.Context, pod *corev1.Pod, options metav1.CreateOptions) (*corev1.Pod, error)
}

// Check is one check of the gate. All fields must be set.
type Check struct {
	// Pods creates Pods in the namespace of Options.
	Pods Creator
	// Warnings returns the warnings of the API server since the last call.
	Warnings func() []string
	// Validating and Mutating are the names of the gate's webhooks. Validating is the one that
	// denies.
	Validating, Mutating string
	// Interval is the time between two requests.
	Interval time.Duration
	// Out receives a line about each step.
	Out io.Writer
}

// Run returns nil once the gate has denied DeniedImage and has answered for AdmittedImage. It
// repeats the requests for at most o.Timeout. The error says what to do.
func (c *Check) Run(ctx context.Context, o Options) error {
	if slices.Contains(o.ExemptNamespaces, o.Namespace) {
		return fmt.Errorf("namespace %s is exempt from admission (exemptNamespaces): the API server does not call the "+
			"gate for it; remove it from that list", o.Namespace)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	c.say("1. ImagePolicy %q covers image %s, which nobody has signed. The gate must deny it.", o.Policy, DeniedImage)
	got := c.await(ctx, DeniedImage, func(a answer) bool { return a.deniesFor(DeniedImage, o.Policy) })
	if !got.deniesFor(DeniedImage, o.Policy) {
		return fmt.Errorf("the denial is missing: %w", o.notDenied(got))
	}
	c.say("   denied, as it must be: %s", got.text)

	c.say("2. That policy does not cover image %s. The gate must not deny it for that policy.", AdmittedImage)
	deniedByOther := func(a answer) bool {
		return a.deniesImage(AdmittedImage) && !a.deniesFor(AdmittedImage, o.Policy)
	}
	got = c.await(ctx, AdmittedImage, func(a answer) bool { return a.kind == admitted || deniedByOther(a) })
	switch {
	case got.kind == admitted:
		c.say("   admitted, as it must be")
		c.say("The gate is reached. It denies and admits.")
	case deniedByOther(got):
		c.say("   denied by what you have set up, which covers every image: %s", got.text)
		c.say("The gate is reached. It denies, and no image was left to show an admission with.")
	default:
		return fmt.Errorf("the admission is missing: %w", o.notAdmitted(got))
	}
	return nil
}

// await requests a Pod with an image until wanted accepts the answer or ctx ends. It returns the
// last answer.
func (c *Check) await(ctx context.Context, image string, wanted func(answer) bool) (last answer) {
	last = answer{kind: unanswered, text: "there was no time for a request"}
	_ = wait.PollUntilContextCancel(ctx, c.Interval, true, func(ctx context.Context) (bool, error) {
		got := c.request(ctx, image)
		if ctx.Err() != nil && got.kind == unanswered && last.kind != unanswered {
			return false, nil // the timeout interrupted this request: the answer before it says more
		}
		changed := got != last
		last = got
		if wanted(got) {
			return true, nil
		}
		if changed {
			c.say("   not yet: %s", got.text)
		}
		return false, nil
	})
	return last
}

// request requests a Pod with an image once.
func (c *Check) request(ctx context.Context, image string) answer {
	c.Warnings()
	_, err := c.Pods.Create(ctx, pod(image), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return c.classify(err)
	}
	text := "the API server admits it"
	if warnings := c.Warnings(); len(warnings) > 0 {
		text += ", and warns: " + strings.Join(warnings, "; ")
	}
	return answer{kind: admitted, text: text}
}

func (c *Check) say(format string, args ...any) { fmt.Fprintf(c.Out, format+"\n", args...) }

// notDenied returns why the expected denial is missing, and what to do.
func (o Options) notDenied(got answer) error {
	switch got.kind {
	case admitted:
		return fmt.Errorf(
			"%s, so the gate is not reached: check that ValidatingWebhookConfiguration countersign exists, "+
				"and that its selectors match the labels of namespace %s", got.text, o.Namespace)
	case decision:
		return fmt.Errorf("the gate denies, and not for ImagePolicy %q: %s: look into the operator's log, "+
			"and check that the policy exists", o.Policy, got.text)
	default:
		return o.unexpected(got)
	}
}

// notAdmitted returns why the expected admission is missing, and what to do.
func (o Options) notAdmitted(got answer) error {
	if got.kind == decision {
		return fmt.Errorf("the gate denies what ImagePolicy %q does not cover: %s: look into the operator's log",
			o.Policy, got.text)
	}
	return o.unexpected(got)
}

// unexpected returns what to do about an answer that is neither an admission nor a decision.
func (o Options) unexpected(got answer) error {
	var advice string
	switch got.kind {
	case broken:
		advice = "the gate is reached and cannot decide: look into the operator's log"
	case unreachable:
		advice = "the API server cannot reach the gate: check that the operator's Pods are ready, that Service " +
			"countersign-webhook has endpoints, and that no firewall blocks the API servers"
	case elsewhere:
		advice = "that is not the gate: except namespace " + o.Namespace + " from that webhook"
	case refused:
		advice = "that is not the gate: the API server refuses the Pod for another reason, such as RBAC, Pod " +
			"Security or another admission plugin; except namespace " + o.Namespace + " from it"
	default:
		advice = "check that Pods in the release's namespace can reach the API server"
	}
	return errors.New(got.text + ": " + advice)
}
