package main

import (
	"context"
	"time"
)

// legacy creates a Pod that no policy covers yet.
func (d *dct) legacy(ctx context.Context) error {
	if err := d.createNamespace(ctx); err != nil {
		return err
	}
	return d.runPod(ctx, "legacy", d.tag("v0")).succeeds("pod/legacy created")
}

// violation waits until the policy's status lists the Pod that is older than the policy.
func (d *dct) violation(ctx context.Context) error {
	took, err := d.until(ctx, patience, 100*time.Millisecond, "the policy to count running Pods", func() error {
		return d.quiet(ctx, "", "get", "imagepolicy", "production", "-o",
			"jsonpath={.status.workloads.covered} {.status.workloads.violating}").succeeds("1 1")
	})
	if err != nil {
		return err
	}
	d.say("Reported %s after the policy was Ready.", took.Round(10*time.Millisecond))
	if err := d.kubectl(ctx, "get", "imagepolicies").succeeds("COVERED", "VIOLATIONS", "production"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "imagepolicy", "production", "-o",
		`jsonpath={range .status.violations[*]}{.namespace}/{.kind}/{.name} {.image} misses {.missingRoles}{"\n"}{end}`).
		succeeds(namespace+"/Pod/legacy", d.tag("v0"), `["ci","qa"]`); err != nil {
		return err
	}
	return d.kubectl(ctx, "wait", "--for=condition=Compliant=false", "imagepolicy/production", "--timeout=10s").
		succeeds("condition met")
}

// debugged tries to add an unsigned ephemeral container to a signed Pod.
func (d *dct) debugged(ctx context.Context) error {
	return d.kubectl(ctx, "debug", "signed", "-n", namespace, "--image="+d.tag("v0"), "--container=debugger").
		denied(d.tag("v0"), `role "ci" has not signed`, `role "qa" has not signed`)
}

// breakGlass starts break-glass in the namespace, and ends it.
func (d *dct) breakGlass(ctx context.Context) error {
	const label, incident = "countersign.dev/break-glass", "INC-4711"
	if err := d.kubectl(ctx, "label", "namespace", namespace, label+"="+incident).succeeds("labeled"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "emergency", d.tag("v0")).
		succeeds("Warning:", incident, `role "qa" has not signed`, "pod/emergency created"); err != nil {
		return err
	}
	_, err := d.until(ctx, patience, 100*time.Millisecond, "break-glass in the policy's status", func() error {
		return d.quiet(ctx, "", "get", "imagepolicy", "production",
			"-o", "jsonpath={.status.breakGlass} {.status.violations[*].name}").
			succeeds(namespace, incident, "emergency")
	})
	if err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "imagepolicy", "production",
		"-o", `jsonpath={.status.breakGlass}{"\n"}`).succeeds(incident); err != nil {
		return err
	}
	if _, err := d.until(ctx, patience, 100*time.Millisecond, "the event", func() error {
		return d.quiet(ctx, "", "get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}").
			succeeds("BreakGlass")
	}); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "events", "-n", namespace, "--field-selector=reason=BreakGlass",
		"-o", "custom-columns=TYPE:.type,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message").
		succeeds("Warning", "emergency", incident); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "label", "namespace", namespace, label+"-").succeeds("unlabeled"); err != nil {
		return err
	}
	if _, err := d.until(ctx, patience, 100*time.Millisecond, "break-glass to end", func() error {
		return d.dryRunAPI(ctx, d.tag("v0")).denied()
	}); err != nil {
		return err
	}
	return d.runPod(ctx, "too-late", d.tag("v0")).denied(`role "qa" has not signed`)
}
