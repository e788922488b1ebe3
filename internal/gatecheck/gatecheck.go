// Package gatecheck tries the gate of a cluster as a user meets it: it asks the API server for a
// Pod that an ImagePolicy denies, and for one that none covers. Both requests are dry runs, so that
// nothing is created or changed. It proves that the API server asks the gate and that the gate
// decides. It says nothing about signing servers.
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

// The images that the Pods name. Hosts under .invalid do not exist (RFC 6761), so neither runs
// anywhere.
const (
	// DeniedImage is what the policy covers.
	DeniedImage = "countersign.invalid/denied:test"
	// AdmittedImage is what it does not.
	AdmittedImage = "countersign.invalid/admitted:test"
)

// Creator creates Pods in one namespace.
type Creator interface {
	Create(ctx context.Context, pod *corev1.Pod, options metav1.CreateOptions) (*corev1.Pod, error)
}

// Check is one try of the gate. All fields must be set.
type Check struct {
	// Pods creates in the namespace that Options names.
	Pods Creator
	// Warnings are what the API server has warned of since they were asked for last.
	Warnings func() []string
	// Webhooks are the names of the gate's webhooks. Validating is the one that denies.
	Validating, Mutating string
	// Interval is the time between two requests.
	Interval time.Duration
	// Out is told about each step.
	Out io.Writer
}

// Run returns nil once the gate has denied what it must and answered for what it need not deny. It
// asks again until then, and for o.Timeout at most. The error says what to do.
func (c *Check) Run(ctx context.Context, o Options) error {
	if slices.Contains(o.ExemptNamespaces, o.Namespace) {
		return fmt.Errorf("namespace %s is exempt from admission (exemptNamespaces): the gate is not asked about it; "+
			"take it out of that list", o.Namespace)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	c.say("1. ImagePolicy %q covers image %s, which nobody has signed. The gate must deny it.", o.Policy, DeniedImage)
	got := c.ask(ctx, DeniedImage, func(a answer) bool { return a.denies(DeniedImage, o.Policy) })
	if !got.denies(DeniedImage, o.Policy) {
		return fmt.Errorf("the denial is missing: %w", o.notDenied(got))
	}
	c.say("   denied, as it must be: %s", got.text)

	c.say("2. That policy does not cover image %s. The gate must not deny it for that policy.", AdmittedImage)
	ruled := func(a answer) bool { return a.decides(AdmittedImage) && !a.denies(AdmittedImage, o.Policy) }
	got = c.ask(ctx, AdmittedImage, func(a answer) bool { return a.kind == admitted || ruled(a) })
	switch {
	case got.kind == admitted:
		c.say("   admitted, as it must be")
		c.say("The gate is reached. It denies and admits.")
	case ruled(got):
		c.say("   denied by what you have set up, which covers every image: %s", got.text)
		c.say("The gate is reached. It denies, and no image was left to show an admission with.")
	default:
		return fmt.Errorf("the admission is missing: %w", o.notAdmitted(got))
	}
	return nil
}

// ask requests a Pod of an image until the answer is wanted, and returns the last answer.
func (c *Check) ask(ctx context.Context, image string, wanted func(answer) bool) (last answer) {
	last = answer{kind: unanswered, text: "there was no time to ask"}
	_ = wait.PollUntilContextCancel(ctx, c.Interval, true, func(ctx context.Context) (bool, error) {
		got := c.request(ctx, image)
		if ctx.Err() != nil && got.kind == unanswered && last.kind != unanswered {
			return false, nil // cut off, which says less than the answer before
		}
		said := got != last
		last = got
		if wanted(got) {
			return true, nil
		}
		if said {
			c.say("   not yet: %s", got.text)
		}
		return false, nil
	})
	return last
}

// request asks for a Pod of an image once.
func (c *Check) request(ctx context.Context, image string) answer {
	c.Warnings()
	_, err := c.Pods.Create(ctx, pod(image), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return c.read(err)
	}
	text := "the API server admits it"
	if warnings := c.Warnings(); len(warnings) > 0 {
		text += ", and warns: " + strings.Join(warnings, "; ")
	}
	return answer{kind: admitted, text: text}
}

func (c *Check) say(format string, args ...any) { fmt.Fprintf(c.Out, format+"\n", args...) }

// notDenied says why the denial did not come, and what to do.
func (o Options) notDenied(got answer) error {
	switch got.kind {
	case admitted:
		return fmt.Errorf(
			"%s, so the gate is not reached: look whether ValidatingWebhookConfiguration countersign is there, "+
				"and whether it and the labels of namespace %s leave that namespace to the gate", got.text, o.Namespace)
	case decision:
		return fmt.Errorf("the gate denies, and not for ImagePolicy %q: %s: look into the operator's log, "+
			"and whether that policy is there", o.Policy, got.text)
	default:
		return o.unexpected(got)
	}
}

// notAdmitted does so for the admission.
func (o Options) notAdmitted(got answer) error {
	if got.kind == decision {
		return fmt.Errorf("the gate denies what ImagePolicy %q does not cover: %s: look into the operator's log",
			o.Policy, got.text)
	}
	return o.unexpected(got)
}

// unexpected is for what is neither an admission nor a decision.
func (o Options) unexpected(got answer) error {
	var advice string
	switch got.kind {
	case broken:
		advice = "the gate is reached and cannot decide: look into the operator's log"
	case unreachable:
		advice = "the API server cannot reach the gate: look whether the operator's Pods are ready, whether Service " +
			"countersign-webhook has endpoints, and whether a firewall lets the API servers through to them"
	case elsewhere:
		advice = "that is not the gate: except namespace " + o.Namespace + " from that webhook"
	case refused:
		advice = "that is not the gate: the API server refuses the Pod for another reason, such as rights, Pod " +
			"Security or " +
			"another admission plugin; except namespace " + o.Namespace + " from it"
	default:
		advice = "look whether the API server can be reached from the Pods of the release's namespace"
	}
	return errors.New(got.text + ": " + advice)
}
