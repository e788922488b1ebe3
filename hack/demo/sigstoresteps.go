package main

import (
	"context"
	"fmt"

	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
)

func (s *sigstore) steps() []step {
	return []step{
		{"Keys, a trust root and a policy",
			`CI and QA make a key pair each. The public keys go into the cluster, and the TrustRoot says which of
them signs for which role, and how to read the registry. The ImagePolicy holds in namespaces with
the label env=production: images under acme/ run only when the roles "ci" and "qa" have signed them.`, s.keys},
		{"Unsigned: denied", `Image v1 is in the registry, and has no signature.`, s.unsigned},
		{"Signed by CI only: denied",
			`CI signs the digest that it built, with its key and without the public transparency log. cosign
stores the signature in the registry, here in its older layout: as the tag sha256-DIGEST.sig.`, s.signedByCI},
		{"Signed by both: admitted, and pinned to the digest",
			`QA signs the same digest, in cosign's newer layout: a Sigstore bundle that refers to the image. The
operator reads both layouts. It rewrites the Pod's image to the verified digest.`, s.signedByBoth},
		{"An identity instead of a key",
			`A workflow needs no key of its own. Sigstore's certificate authority issues it a certificate for ten
minutes, and its transparency log records when the signature was made. The TrustRoot now lists the
identity of the release workflow for "ci", beside the key, and trusts one Sigstore instance. The
demo plays that instance and the workflow; cosign stores the signatures. QA signs image v2 with its
key. The workflow signs it on the branch "experiment" first: another identity.`, s.identity},
		{"An attestation with a condition",
			`An attestation is a signed statement about an image. The policy now requires the role "provenance"
too. It is proven by an SLSA provenance of the builder's key that meets the condition: the hosted
builder made the image. Image v3 was built on a laptop, v4 by the hosted builder. Both roles sign
both images.`, s.attestation},
		{"Manager restarted with the registry down: decided as before",
			`The registry stops, and then the manager restarts. What it had verified is recorded in the cluster,
so it decides as before. By its tag, v4 is admitted with a warning: the registry cannot say whether
the tag has moved. What was denied is still denied, and so is v5, which nobody has used before. The
manager cannot look for signatures, so these denials say that it could not check.`, s.restarted},
		{"Status: the state of policies and trust roots",
			`The TrustRoot is no longer Fresh, and shows the reason.`, s.visible},
	}
}

func (s *sigstore) keys(ctx context.Context) error {
	if err := s.createNamespace(ctx); err != nil {
		return err
	}
	s.comment("Each signer makes a key pair; the builder's is for step 6")
	s.cosign.Verbose = s.command
	args := []string{"create", "configmap", "cosign-keys", "-n", operator.Namespace}
	for _, name := range []string{"ci", "qa", "builder"} {
		if _, err := s.cosign.GenerateKey(ctx, name); err != nil {
			return err
		}
		args = append(args, "--from-file="+s.file(name+".pub"))
	}
	if err := s.kubectl(ctx, args...).succeeds("created"); err != nil {
		return err
	}
	if err := s.apply(ctx, s.trustRoot(false, false)).succeeds("created"); err != nil {
		return err
	}
	if err := s.apply(ctx, s.policy("ci", "qa")).succeeds("created"); err != nil {
		return err
	}
	return s.ready(ctx)
}

func (s *sigstore) ready(ctx context.Context) error {
	return s.kubectl(ctx, "wait", "--for=condition=Ready", "trustroot/acme-sigstore", "imagepolicy/production",
		"--timeout=60s").
		succeeds("trustroot.countersign.dev/acme-sigstore condition met",
			"imagepolicy.countersign.dev/production condition met")
}

func (s *sigstore) unsigned(ctx context.Context) error {
	return s.denied(ctx, s.demo, "unsigned", "v1", `role "ci" has not signed`, `role "qa" has not signed`)
}

func (s *sigstore) signedByCI(ctx context.Context) error {
	s.comment("CI signs v1 in the older layout")
	if err := s.sign(ctx, "ci", cosign.TagLayout, "v1"); err != nil {
		return err
	}
	return s.denied(ctx, s.demo, "half-signed", "v1", `role "qa" has not signed `+short(s.tags["v1"].Digest),
		"signed by ci", `is a key of "ci" alone`)
}

func (s *sigstore) signedByBoth(ctx context.Context) error {
	s.comment("QA signs v1 in the newer layout")
	if err := s.sign(ctx, "qa", cosign.BundleLayout, "v1"); err != nil {
		return err
	}
	return s.pinned(ctx, s.demo, "signed", "v1")
}

func (s *sigstore) identity(ctx context.Context) error {
	if err := s.kubectl(ctx, "create", "configmap", "trusted-root", "-n", operator.Namespace,
		"--from-file="+s.file("trusted_root.json")).succeeds("created"); err != nil {
		return err
	}
	if err := s.apply(ctx, s.trustRoot(true, false)).succeeds("configured"); err != nil {
		return err
	}
	s.comment("QA signs v2 with its key, and the workflow signs it on another branch")
	if err := s.sign(ctx, "qa", cosign.BundleLayout, "v2"); err != nil {
		return err
	}
	if err := s.signAs(ctx, branch, "v2"); err != nil {
		return err
	}
	// The edited TrustRoot is in force once a denial names the identity.
	if _, err := s.until(ctx, patience, pollInterval, "the edited trust root to be in force", func() error {
		return s.dryRunAPI(ctx, s.tags["v2"].Tagged()).denied(branch)
	}); err != nil {
		return err
	}
	if err := s.denied(ctx, s.demo, "other-branch", "v2", `role "ci" has not signed`, "signed by qa",
		branch); err != nil {
		return err
	}
	s.comment("The workflow signs v2 on the branch main")
	if err := s.signAs(ctx, workflow, "v2"); err != nil {
		return err
	}
	if err := s.pinned(ctx, s.demo, "by-identity", "v2"); err != nil {
		return err
	}
	s.say("The image v1, which CI signed with its key, is admitted as before:")
	return s.pinned(ctx, s.demo, "by-key", "v1")
}

func (s *sigstore) attestation(ctx context.Context) error {
	if err := s.apply(ctx, s.trustRoot(true, true)).succeeds("configured"); err != nil {
		return err
	}
	if err := s.apply(ctx, s.policy("ci", "qa", "provenance")).succeeds("configured"); err != nil {
		return err
	}
	s.comment("CI and QA sign v3 and v4")
	for _, tag := range []string{"v3", "v4"} {
		if err := s.sign(ctx, "ci", cosign.TagLayout, tag); err != nil {
			return err
		}
		if err := s.sign(ctx, "qa", cosign.BundleLayout, tag); err != nil {
			return err
		}
	}
	if _, err := s.until(ctx, patience, pollInterval, "the edited policy to be in force", func() error {
		return s.dryRunAPI(ctx, s.tags["v4"].Tagged()).denied(`role "provenance"`, "signed by ci, qa")
	}); err != nil {
		return err
	}
	if err := s.denied(ctx, s.demo, "not-attested", "v4", `role "provenance"`, "signed by ci, qa"); err != nil {
		return err
	}
	for _, image := range []struct{ tag, builder string }{{"v3", laptop}, {"v4", hosted}} {
		s.comment(fmt.Sprintf("The builder attests how it built %s, with predicate.json:\n%s", image.tag,
			predicate(image.builder)))
		if err := s.cosign.Attest(ctx, s.tags[image.tag].ByDigest(), "builder", cosign.BundleLayout, "slsaprovenance1",
			predicate(image.builder)); err != nil {
			return err
		}
	}
	if err := s.denied(ctx, s.demo, "built-on-laptop", "v3", `role "provenance"`, "does not meet conditions[0]",
		"builder.id"); err != nil {
		return err
	}
	return s.pinned(ctx, s.demo, "built-by-hosted", "v4")
}

func (s *sigstore) restarted(ctx context.Context) error {
	if err := s.registry.Interrupt(); err != nil {
		return err
	}
	s.say("The registry is down.")
	if err := s.manager.Stop(); err != nil {
		return err
	}
	s.say("The manager has stopped. It has recorded what it knows:")
	if err := s.kubectl(ctx, "get", "configmaps", "-n", operator.Namespace, "-l", "countersign.dev/metadata=head", "-o",
		`custom-columns=REPOSITORY:.metadata.annotations.countersign\.dev/repository`).
		succeeds(s.tags["v1"].Repository); err != nil {
		return err
	}
	if err := s.runManager(ctx); err != nil {
		return err
	}
	s.say("The manager is up again.")
	if _, err := s.until(ctx, patience, pollInterval, "the API server to call the new manager", func() error {
		return s.dryRunAPI(ctx, s.tags["v4"].ByDigest()).succeeds()
	}); err != nil {
		return err
	}
	if err := s.runPod(ctx, "known-digest", s.tags["v4"].ByDigest()).
		succeeds("pod/known-digest created"); err != nil {
		return err
	}
	if err := s.runPod(ctx, "known-tag", s.tags["v4"].Tagged()).
		succeeds("Warning:", "the registry could not be queried again", "pod/known-tag created"); err != nil {
		return err
	}
	if err := s.denied(ctx, s.demo, "still-from-laptop", "v3", `role "provenance"`); err != nil {
		return err
	}
	return s.denied(ctx, s.demo, "never-seen", "v5", `TrustRoot "acme-sigstore"`, "connection was refused")
}

func (s *sigstore) visible(ctx context.Context) error {
	if _, err := s.until(ctx, patience, pollInterval, "Fresh=False", func() error {
		return s.quiet(ctx, "", "get", "trustroot", "acme-sigstore", "-o",
			`jsonpath={.status.conditions[?(@.type=="Fresh")].status}`).succeeds("False")
	}); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "get", "imagepolicies").succeeds("production", "ci,qa,provenance"); err != nil {
		return err
	}
	return s.kubectl(ctx, "get", "trustroots", "-o", "wide").succeeds("acme-sigstore", "Sigstore", "False")
}
