package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// refreshed bounds the time until the manager sees a change on the Notary server: the refresh
// interval of 30 s, and 45 s for a slow machine.
const refreshed = 75 * time.Second

func (d *dct) steps() []step {
	return []step{
		{
			"Before there is a policy",
			`Image v0 is in the registry. It has no signature, but no policy covers it: it may run.`, d.legacy,
		},
		{"A trust root and a policy",
			`The TrustRoot names the Notary server, and pins the root of trust by the key ID that "docker trust
inspect" prints. The ImagePolicy holds in namespaces with the label env=production: images under
acme/ of this registry run only when the roles "ci" and "qa" have signed them.`, d.applyPolicy},
		{
			"A Pod that already runs: reported as a violation",
			`The policy does not stop running Pods. Its status lists the Pod of step 1 as a violation, with the
missing roles.`,
			d.violation,
		},
		{"Unsigned: denied", `Image v1 is in the registry, and has no signature.`, d.unsigned},
		{"Signed by CI only: denied",
			`CI signs the image that it built. The policy requires QA's signature too. The denial names the
missing role.`, d.signedByCI},
		{"Signed by both: admitted, and pinned to the digest",
			`QA signs the same digest. The webhook admits the Pod, and rewrites its image to the verified
digest, so that exactly this image runs.`, d.signedByBoth},
		{
			"Debugging with an unsigned image: denied",
			`kubectl debug adds a container to a running Pod. The same policy applies to its image.`, d.debugged,
		},
		{"Deployments and their Pods: both checked",
			`The webhook checks a Deployment when it is created, and later each Pod that its controller
creates. It pins the Pod to the digest. The Deployment's template stays unchanged, so GitOps tools
see no drift.`, d.deployment},
		{"By digest only", `A reference without a tag is admitted when every role has signed its digest.`, d.digestOnly},
		{"Tag moved and re-signed by CI alone: denied",
			`A developer pushes another image as v1, and CI signs it. CI's signature is now on one digest and
QA's on another. No digest has both, so v1 is denied, whatever the registry serves. The denial
names both digests.`, d.tagMoved},
		{"QA revoked: denied after the refresh",
			`Both roles sign image v2, and it is admitted. Then QA revokes its signature. The manager decides
from signed metadata in memory, which it refreshes every 30 seconds here (refreshInterval; 5
minutes by default).`, d.revoked},
		{"Status: the state of policies and trust roots",
			`Policies and trust roots report their state. CI has signed v1 with another digest, so Pods that
run the old digest no longer have both signatures. They count as violations, and keep running.`, d.visible},
		{"Break-glass: admitted with a warning, and recorded",
			`A cluster administrator labels the namespace with a reason. Images that the policy would deny are
now admitted, each with a warning, an event and a metric. The policy's status lists the namespace.`, d.breakGlass},
		{
			"Policy edited: in force within a second",
			`Both roles sign image v3. The policy is edited to require the role "security" too, and then edited
back.`,
			d.edited,
		},
		{"Notary server stopped: a known image is still admitted",
			`Production keeps scaling during an outage of the Notary server: the signed metadata in memory is
valid until it expires (EXPIRES above). The TrustRoot is no longer Fresh, and shows the reason.`, d.serverStopped},
	}
}

func (d *dct) applyPolicy(ctx context.Context) error {
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

func (d *dct) unsigned(ctx context.Context) error {
	return d.runPod(ctx, "unsigned", d.tag("v1")).denied(d.tag("v1"), "production", `role "ci"`, `role "qa"`)
}

func (d *dct) signedByCI(ctx context.Context) error {
	if err := d.addHash(ctx, "v1", "ci"); err != nil {
		return err
	}
	return d.runPod(ctx, "half-signed", d.tag("v1")).denied(`role "qa" has not signed `+short(d.images["v1"].Digest),
		"signed by ci", `TrustRoot "acme-notary"`)
}

func (d *dct) signedByBoth(ctx context.Context) error {
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

func (d *dct) deployment(ctx context.Context) error {
	if err := d.kubectl(ctx, "create", "deployment", "unsigned", "-n", namespace,
		"--image="+d.tag("v2")).denied(d.tag("v2")); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "create", "deployment", "web", "-n", namespace,
		"--image="+d.tag("v1")).succeeds("created"); err != nil {
		return err
	}
	_, err := d.until(ctx, patience, 100*time.Millisecond, "the controllers to create the Pod", func() error {
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

func (d *dct) digestOnly(ctx context.Context) error {
	if err := d.runPod(ctx, "by-digest",
		d.repository()+"@"+d.images["v1"].Digest).succeeds("pod/by-digest created"); err != nil {
		return err
	}
	d.say("The digest of v2, which has no signature:")
	return d.runPod(ctx, "by-unsigned-digest",
		d.repository()+"@"+d.images["v2"].Digest).denied("no signatures for this digest")
}

func (d *dct) tagMoved(ctx context.Context) error {
	before := d.images["v1"]
	after, err := d.push(ctx, "v1")
	if err != nil {
		return err
	}
	d.say("The registry served %s... as v1, and now serves %s...", short(before.Digest), short(after.Digest))
	if err := d.addHash(ctx, "v1", "ci"); err != nil {
		return err
	}
	d.say("Until the next refresh, v1 is pinned to the digest that both have signed, never to the new one.")
	if err := d.untilDenied(ctx, d.tag("v1"), func(a answer) error {
		return a.succeeds(before.Digest)
	}); err != nil {
		return err
	}
	return d.runPod(ctx, "moved", d.tag("v1")).denied(short(before.Digest), short(after.Digest), "ci", "qa")
}

func (d *dct) revoked(ctx context.Context) error {
	if err := d.addHash(ctx, "v2", "ci", "qa"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "before", d.tag("v2")).succeeds("pod/before created"); err != nil {
		return err
	}
	err := d.sign("QA revokes its signature",
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

func (d *dct) visible(ctx context.Context) error {
	return d.kubectl(ctx, "get", "imagepolicies,trustroots").succeeds("imagepolicy.countersign.dev/production",
		"Enforce", "ci,qa", "trustroot.countersign.dev/acme-notary", "Notary", "True")
}

func (d *dct) edited(ctx context.Context) error {
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
			func() error { return want(d.dryRunAPI(ctx, d.tag("v3"))) })
		if err != nil {
			return err
		}
		d.say("In force %s after kubectl returned.", took.Round(time.Millisecond))
		return nil
	}
	if err := measure("a denial by the edited policy", func(a answer) error { return a.denied("security") }, "ci", "qa",
		"security"); err != nil {
		return err
	}
	if err := d.runPod(ctx, "needs-security", d.tag("v3")).denied(`role "security" has not signed`,
		"signed by ci, qa"); err != nil {
		return err
	}
	return measure("an admission by the policy as before", func(a answer) error { return a.succeeds() }, "ci", "qa")
}

func (d *dct) serverStopped(ctx context.Context) error {
	if err := d.server(down); err != nil {
		return err
	}
	d.say("The Notary server is down: its process is suspended, and its address refuses connections.")
	if err := d.runPod(ctx, "in-the-outage", d.tag("v3")).succeeds("pod/in-the-outage created"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "create", "deployment", "known", "-n", namespace, "--replicas=3",
		"--image="+d.tag("v3")).succeeds("created"); err != nil {
		return err
	}
	_, err := d.until(ctx, patience, 100*time.Millisecond, "the controllers to create the Pods", func() error {
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
	d.say("The next refresh fails, and the TrustRoot's condition Fresh becomes False:")
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
	return d.runPod(ctx, "later-in-the-outage", d.tag("v3")).succeeds("pod/later-in-the-outage created")
}

// tag returns the full reference of a tag of the demo's repository.
func (d *dct) tag(tag string) string { return d.repository() + ":" + tag }

// untilDenied waits until the webhook denies the image after the next refresh. meanwhile checks
// each answer before that.
func (d *dct) untilDenied(ctx context.Context, image string, meanwhile func(answer) error) error {
	var wrong error
	took, err := d.until(ctx, refreshed, time.Second, "the next refresh", func() error {
		a := d.dryRun(ctx, image)
		if a.failed {
			return nil // the step checks the denial
		}
		if wrong == nil {
			wrong = meanwhile(a)
		}
		return a.unexpected("a denial by the admission webhook")
	})
	if err := errors.Join(err, wrong); err != nil {
		return err
	}
	d.say("Denied after %s.", took.Round(time.Second))
	return nil
}

// addHash signs the tag's image in the delegations of roles.
func (d *dct) addHash(ctx context.Context, tag string, roles ...string) error {
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

// short returns a digest as denials print it.
func short(digest string) string {
	const hex = 8
	return digest[:len("sha256:")+hex]
}

// sign runs the notary client, which prints its command line.
func (d *dct) sign(comment string, run func() error) error {
	d.comment(comment)
	d.signer.Verbose = d.command
	defer func() { d.signer.Verbose = nil }()
	return run()
}
