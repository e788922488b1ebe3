package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// refreshed is how long a change on the Notary server may take to be seen: the refresh
	// interval, and some.
	refreshed = 75 * time.Second
	patience  = 60 * time.Second
)

// steps are the demo, in order. Each relies on those before it.
func steps() []step {
	return []step{
		{
			"Before there is a policy",
			`Image v0 is in the registry, nobody has signed it, and no policy covers it: it may run.`, legacy,
		},
		{"A trust root and a policy",
			`The TrustRoot says where signatures come from and pins the root of trust by the key ID that
"docker trust inspect" prints. The ImagePolicy says that in namespaces labelled env=production, images of
this registry under acme/ run only when the roles "ci" and "qa" have signed them.`, applyPolicy},
		{
			"What already runs in breach",
			`The policy does not stop what runs. It tells: the Pod of before is a violation, and the roles that it misses are named.`,
			violation,
		},
		{"Unsigned: denied", `Image v1 is in the registry, and nobody has signed it.`, unsigned},
		{"Signed by CI only: denied",
			`CI signs what it built. The policy wants QA's signature as well, and the denial names the role that is
missing.`, signedByCI},
		{"Signed by both: admitted, and pinned to the digest",
			`QA signs the same digest. The Pod is admitted, and its image is rewritten to the digest that was verified, so
that what was verified is what runs.`, signedByBoth},
		{
			"Debugging with an unsigned image: denied",
			`An ephemeral container needs no new Pod, and passes the same gate.`, debugged,
		},
		{"The same through a Deployment",
			`A Deployment is checked when it is created, and so is the Pod that its controller makes. The
template stays as it was written, so that GitOps tools see no drift; the Pod is pinned.`, deployment},
		{"By digest only", `A reference without a tag is admitted when every role has signed that digest.`, digestOnly},
		{"Tag moved and re-signed by CI alone: denied",
			`Somebody pushes another image as v1, and CI signs it. CI's signature is now on one digest and QA's on another:
no image has both, whatever the registry serves. The message names both digests.`, tagMoved},
		{"QA revoked: denied after the refresh",
			`Image v2 is signed by both and admitted. Then QA takes its signature back. Decisions come from memory, which is
brought up to date every 30 seconds here (refreshInterval; 5 minutes by default).`, revoked},
		{"What is enforced",
			`Policies and trust roots say what they do. Since v1 was signed anew as another digest, nothing that runs as the old one
has both signatures any more: that shows as violations, and stops nothing.`, visible},
		{"Break-glass: admitted with a warning, and on record",
			`A cluster administrator labels the namespace with a reason. What would be denied is then admitted with a
warning, an event and a metric, and the policy's status tells where the gate stands open.`, breakGlass},
		{
			"Policy edited: in force within a second",
			`Image v3 is signed by both. The policy is edited to want the role "security" too, and then edited back.`,
			edited,
		},
		{"Notary server stopped: a known image is still admitted",
			`The signing server's outage does not stop production from scaling: the signed metadata in memory is good until
it expires (EXPIRES above). The TrustRoot is no longer Fresh, and says why.`, serverStopped},
	}
}

func applyPolicy(ctx context.Context, d *demo) error {
	if err := d.kubectlWith(ctx, d.trustRoot(), "apply", "-f", "-").succeeds("created"); err != nil {
		return err
	}
	if err := d.kubectlWith(ctx, d.imagePolicy("ci", "qa"), "apply", "-f", "-").succeeds("created"); err != nil {
		return err
	}
	return d.kubectl(ctx, "wait", "--for=condition=Ready", "trustroot/acme-notary", "imagepolicy/production",
		"--timeout=60s").
		succeeds("trustroot.countersign.dev/acme-notary condition met",
			"imagepolicy.countersign.dev/production condition met")
}

func unsigned(ctx context.Context, d *demo) error {
	return d.runPod(ctx, "unsigned", d.tag("v1")).denied(d.tag("v1"), "production", `role "ci"`, `role "qa"`)
}

func signedByCI(ctx context.Context, d *demo) error {
	if err := d.addHash(ctx, "v1", "ci"); err != nil {
		return err
	}
	return d.runPod(ctx, "half-signed", d.tag("v1")).denied(`role "qa" has not signed `+short(d.images["v1"].Digest),
		"signed by ci", `TrustRoot "acme-notary"`)
}

func signedByBoth(ctx context.Context, d *demo) error {
	if err := d.addHash(ctx, "v1", "qa"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "signed", d.tag("v1")).succeeds("pod/signed created"); err != nil {
		return err
	}
	return d.kubectl(ctx, "get", "pod", "signed", "-n", namespace, "-o",
		"jsonpath={.spec.containers[0].image}{\"\\n\"}").
		succeeds(d.tag("v1") + "@" + d.images["v1"].Digest)
}

func deployment(ctx context.Context, d *demo) error {
	if err := d.kubectl(ctx, "create", "deployment", "unsigned", "-n", namespace,
		"--image="+d.tag("v2")).denied(d.tag("v2")); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "create", "deployment", "web", "-n", namespace,
		"--image="+d.tag("v1")).succeeds("created"); err != nil {
		return err
	}
	_, err := d.until(ctx, patience, 100*time.Millisecond, "the controllers to make the Pod", func() error {
		return d.quiet(ctx, "", "get", "pods", "-n", namespace, "-l", "app=web", "-o", "name").succeeds("pod/web-")
	})
	if err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "deployment", "web", "-n", namespace, "-o",
		"custom-columns=DEPLOYMENT:.metadata.name,IMAGE:.spec.template.spec.containers[0].image").
		succeeds(d.tag("v1") + "\n"); err != nil {
		return err
	}
	return d.kubectl(ctx, "get", "pods", "-n", namespace, "-l", "app=web", "-o",
		"custom-columns=POD:.metadata.name,OWNER:.metadata.ownerReferences[0].kind,IMAGE:.spec.containers[0].image").
		succeeds("ReplicaSet", d.tag("v1")+"@"+d.images["v1"].Digest)
}

func digestOnly(ctx context.Context, d *demo) error {
	if err := d.runPod(ctx, "by-digest",
		d.repository()+"@"+d.images["v1"].Digest).succeeds("pod/by-digest created"); err != nil {
		return err
	}
	d.say("The digest of v2, which nobody has signed:")
	return d.runPod(ctx, "by-unsigned-digest",
		d.repository()+"@"+d.images["v2"].Digest).denied("no signatures for this digest")
}

func tagMoved(ctx context.Context, d *demo) error {
	before := d.images["v1"]
	after, err := d.push(ctx, "v1")
	if err != nil {
		return err
	}
	d.say("The registry served %s... as v1, and now serves %s... instead.", short(before.Digest), short(after.Digest))
	if err := d.addHash(ctx, "v1", "ci"); err != nil {
		return err
	}
	d.say("Until the next refresh v1 stays the digest that both signed, and never becomes the new one.")
	if err := d.untilDenied(ctx, d.tag("v1"), func(a answer) error {
		return a.succeeds(before.Digest)
	}); err != nil {
		return err
	}
	return d.runPod(ctx, "moved", d.tag("v1")).denied(short(before.Digest), short(after.Digest), "ci", "qa")
}

func revoked(ctx context.Context, d *demo) error {
	if err := d.addHash(ctx, "v2", "ci", "qa"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "before", d.tag("v2")).succeeds("pod/before created"); err != nil {
		return err
	}
	err := d.sign("QA takes its signature back",
		func() error { return d.signer.Remove(ctx, d.repository(), "v2", "targets/qa") })
	if err != nil {
		return err
	}
	if err := d.untilDenied(ctx, d.tag("v2"),
		func(a answer) error { return a.succeeds(d.images["v2"].Digest) }); err != nil {
		return err
	}
	return d.runPod(ctx, "after", d.tag("v2")).denied(`role "qa" has not signed `+short(d.images["v2"].Digest),
		"signed by ci")
}

func visible(ctx context.Context, d *demo) error {
	return d.kubectl(ctx, "get", "imagepolicies,trustroots").succeeds("imagepolicy.countersign.dev/production",
		"Enforce", "ci,qa", "trustroot.countersign.dev/acme-notary", "Notary", "True")
}

func edited(ctx context.Context, d *demo) error {
	if err := d.addHash(ctx, "v3", "ci", "qa"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "known", d.tag("v3")).succeeds("pod/known created"); err != nil {
		return err
	}
	measure := func(what string, want func(answer) error, roles ...string) error {
		if err := d.kubectlWith(ctx, d.imagePolicy(roles...), "apply", "-f", "-").succeeds("configured"); err != nil {
			return err
		}
		took, err := d.until(ctx, time.Second, time.Millisecond, what,
			func() error { return want(d.ask(ctx, d.tag("v3"))) })
		if err != nil {
			return err
		}
		d.say("In force %s after kubectl had returned.", took.Round(time.Millisecond))
		return nil
	}
	if err := measure("the edited policy to deny", func(a answer) error { return a.denied("security") }, "ci", "qa",
		"security"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "needs-security", d.tag("v3")).denied(`role "security" has not signed`,
		"signed by ci, qa"); err != nil {
		return err
	}
	return measure("the policy, edited back, to admit", func(a answer) error { return a.succeeds() }, "ci", "qa")
}

func serverStopped(ctx context.Context, d *demo) error {
	if err := d.server(down); err != nil {
		return err
	}
	d.say("The Notary server is stopped: its process is suspended and its address refuses connections.")
	if err := d.runPod(ctx, "in-the-dark", d.tag("v3")).succeeds("pod/in-the-dark created"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "create", "deployment", "known", "-n", namespace, "--replicas=3",
		"--image="+d.tag("v3")).succeeds("created"); err != nil {
		return err
	}
	_, err := d.until(ctx, patience, 100*time.Millisecond, "the controllers to make the Pods", func() error {
		a := d.quiet(ctx, "", "get", "pods", "-n", namespace, "-l", "app=known", "-o", "name")
		if strings.Count(a.output, "pod/known-") != 3 {
			return a.unexpected("three Pods")
		}
		return a.succeeds()
	})
	if err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "replicasets", "-n", namespace, "-l", "app=known", "-o",
		"custom-columns=REPLICASET:.metadata.name,DESIRED:.spec.replicas,CREATED:.status.replicas").
		succeeds("3         3"); err != nil {
		return err
	}
	d.say("The TrustRoot says so as soon as the next refresh finds the server gone.")
	_, err = d.until(ctx, refreshed, time.Second, "Fresh=False", func() error {
		return d.quiet(ctx, "", "get", "trustroot", "acme-notary", "-o",
			`jsonpath={.status.conditions[?(@.type=="Fresh")].status}`).succeeds("False")
	})
	if err != nil {
		return err
	}
	if err := d.kubectl(ctx, "get", "trustroot", "acme-notary", "-o", "wide").succeeds("False", "refused"); err != nil {
		return err
	}
	return d.runPod(ctx, "still-in-the-dark", d.tag("v3")).succeeds("pod/still-in-the-dark created")
}

// tag is the full reference of a tag of the demo's repository.
func (d *demo) tag(tag string) string { return d.repository() + ":" + tag }

// runPod runs an image as a user would.
func (d *demo) runPod(ctx context.Context, name, image string) answer {
	return d.kubectl(ctx, "run", name, "-n", namespace, "--image="+image)
}

// dryRun asks the API server what would become of a Pod, admission included, and prints nothing.
func (d *demo) dryRun(ctx context.Context, image string) answer {
	return d.quiet(ctx, "", "run", "dry-run", "-n", namespace, "--image="+image, "--dry-run=server", "-o",
		"jsonpath={.spec.containers[0].image}")
}

// ask is dryRun without a kubectl to start, for measuring.
func (d *demo) ask(ctx context.Context, image string) answer {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "dry-run"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
	err := d.client.Create(ctx, pod, client.DryRunAll)
	if err != nil {
		return answer{command: "a dry run of " + image, output: err.Error(), failed: true}
	}
	return answer{command: "a dry run of " + image, output: pod.Spec.Containers[0].Image}
}

// untilDenied waits for the next refresh to end the admission of an image. Until then every answer
// must pass meanwhile.
func (d *demo) untilDenied(ctx context.Context, image string, meanwhile func(answer) error) error {
	var wrong error
	took, err := d.until(ctx, refreshed, time.Second, "the next refresh", func() error {
		a := d.dryRun(ctx, image)
		if a.failed {
			return nil // the step itself looks at the denial
		}
		if wrong == nil {
			wrong = meanwhile(a)
		}
		return a.unexpected("a denial by the admission webhook")
	})
	if err := errors.Join(err, wrong); err != nil {
		return err
	}
	d.say("Seen after %s.", took.Round(time.Second))
	return nil
}

// addHash signs the image that a tag names in the registry, in the delegations of roles.
func (d *demo) addHash(ctx context.Context, tag string, roles ...string) error {
	image := d.images[tag]
	delegations := make([]string, len(roles))
	for i, r := range roles {
		delegations[i] = "targets/" + r
	}
	who := strings.ToUpper(roles[0]) + " signs"
	if len(roles) > 1 {
		who = "CI and QA sign"
	}
	return d.sign(fmt.Sprintf("%s %s... as %s", who, short(image.Digest), tag), func() error {
		return d.signer.AddHash(ctx, d.repository(), tag, image.Size, image.Hex, delegations...)
	})
}

// short is a digest as denials print it.
func short(digest string) string {
	const hex = 8
	return digest[:len("sha256:")+hex]
}
