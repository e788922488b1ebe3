package main

import (
	"context"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// formats is the story of one image in all signature formats.
type formats struct {
	*demo
	images
	signers map[string]signers.Signer
}

func (f *formats) servers() []server {
	all := []server{{"Starting a TLS registry, and pushing two newly made images to it", f.startRegistry}}
	for _, format := range []struct{ name, what string }{
		{signers.Notary, "Starting notary-server, and creating a repository on it with the delegations of ci and qa"},
		{signers.Sigstore, "Making a key pair for ci and another for qa with cosign"},
		{signers.Notation, "Making a CA, and certificates for ci and qa, for notation"},
		{signers.SimpleSigning, "Making OpenPGP keys for ci and qa, and starting a web server for their signatures"},
		{signers.TUF, "Making a TUF repository with the delegations ci and qa, and starting a web server for it"},
	} {
		all = append(all, server{format.what, func(ctx context.Context) error {
			return f.startSigner(ctx, format.name)
		}})
	}
	return all
}

func (f *formats) startRegistry(ctx context.Context) error {
	f.signers = make(map[string]signers.Signer)
	return f.start(ctx, f.demo, "v1", "v2")
}

func (f *formats) startSigner(ctx context.Context, format string) error {
	dir, err := f.subdir(format)
	if err != nil {
		return err
	}
	signer, err := signers.Start(ctx, format, signers.Options{
		Registry: f.registry, Dir: dir, Progress: f.out, Verbose: f.command,
	})
	if err != nil {
		return err
	}
	f.stopLater(signer.Stop)
	f.signers[format] = signer
	return signer.Prepare(ctx, f.tags["v1"].Repository)
}

func (f *formats) steps() []step {
	in := func(format string) func(context.Context) error {
		return func(ctx context.Context) error { return f.signed(ctx, format) }
	}
	return []step{
		{"One policy",
			`The ImagePolicy requires the roles "ci" and "qa" for images under acme/. It does not say how they
sign: that is up to the TrustRoots that it names. None of them exists yet, so nothing may run.`, f.policy},
		{"notary: Docker Content Trust",
			`A Notary server holds the signed metadata: which digest a tag has, by whose signature. The
TrustRoot pins the server's root of trust by its key ID.`, in(signers.Notary)},
		{"sigstore: cosign",
			`cosign stores the signatures beside the image in the registry. The TrustRoot lists the keys. ci
signs in cosign's older layout (a tag), and qa in the newer one (a Sigstore bundle). The signatures
of the step before do not count: the policy names only the new TrustRoot.`, in(signers.Sigstore)},
		{"notation: Notary Project",
			`notation stores its signatures in the registry too. The TrustRoot lists the CA, and the subject that
the certificate of each role must have. ci signs in a JWS envelope, and qa in COSE.`, in(signers.Notation)},
		{"simpleSigning: OpenPGP, as podman and skopeo sign",
			`The signatures are files on a web server, the lookaside. The TrustRoot lists the OpenPGP keys. The
demo writes the files itself, so no command is shown.`, in(signers.SimpleSigning)},
		{"tuf: The Update Framework",
			`A web server has signed metadata: a delegation for each role lists tags and digests. The TrustRoot
has the first root.json, from which everything else is verified. The demo signs with Go's TUF
library, so no command is shown.`, in(signers.TUF)},
		{"Two formats together",
			`The policy names the TrustRoots of all five formats. CI signs image v2 with cosign, and QA signs it
with notation. A role is the same in every format, so v2 has both.`, f.together},
		{"Status: the state of policies and trust roots",
			`FORMAT says how the roles of a TrustRoot sign. EXPIRES is when the first certificate or the signed
metadata ends; keys alone do not expire.`, f.visible},
	}
}

func trustRootOf(format string) string { return "acme-" + strings.ToLower(format) }

// podOf returns the name of a Pod for a format.
func podOf(what, format string) string { return what + "-" + strings.ToLower(format) }

func (f *formats) applyPolicy(ctx context.Context, trustRoots ...string) answer {
	return f.apply(ctx, imagePolicy(f.registry.Host, trustRoots, signers.CI, signers.QA))
}

func (f *formats) policy(ctx context.Context) error {
	if err := f.createNamespace(ctx); err != nil {
		return err
	}
	if err := f.applyPolicy(ctx, trustRootOf(signers.Notary)).succeeds("created"); err != nil {
		return err
	}
	return f.untilDenied(ctx, "too-early", "v1", trustRootOf(signers.Notary))
}

// signed shows an image before, between and after its signatures in a format.
func (f *formats) signed(ctx context.Context, format string) error {
	root := trustRootOf(format)
	spec, err := f.signers[format].Spec()
	if err != nil {
		return err
	}
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": "countersign.dev/v1alpha1", "kind": "TrustRoot", "metadata": map[string]any{"name": root},
		"spec": spec,
	})
	if err != nil {
		return err
	}
	if err := f.apply(ctx, string(manifest)).succeeds("created"); err != nil {
		return err
	}
	if format != signers.Notary { // step 1 names that one
		if err := f.kubectl(ctx, "patch", "imagepolicy", "production", "--type=merge",
			"-p", fmt.Sprintf(`{"spec":{"trustRoots":[%q]}}`, root)).succeeds("patched"); err != nil {
			return err
		}
	}
	if err := f.kubectl(ctx, "wait", "--for=condition=Ready", "trustroot/"+root, "imagepolicy/production",
		"--timeout=60s").succeeds("trustroot.countersign.dev/" + root + " condition met"); err != nil {
		return err
	}
	if err := f.untilDenied(ctx, podOf("unsigned", format), "v1", `role "ci" has not signed`,
		`role "qa" has not signed`); err != nil {
		return err
	}
	if err := f.sign(ctx, format, signers.CI, "v1"); err != nil {
		return err
	}
	if err := f.denied(ctx, f.demo, podOf("half-signed", format), "v1", `role "qa" has not signed `,
		"signed by ci", fmt.Sprintf("TrustRoot %q", root)); err != nil {
		return err
	}
	if err := f.sign(ctx, format, signers.QA, "v1"); err != nil {
		return err
	}
	return f.pinned(ctx, f.demo, podOf("signed", format), "v1")
}

// untilDenied waits until the webhook denies an image with all of words, as the policy of this
// moment does, and then runs a Pod with it.
func (f *formats) untilDenied(ctx context.Context, pod, tag string, words ...string) error {
	_, err := f.until(ctx, patience, pollInterval, "the policy to be in force", func() error {
		return f.dryRunAPI(ctx, f.tags[tag].Tagged()).denied(words...)
	})
	if err != nil {
		return err
	}
	return f.denied(ctx, f.demo, pod, tag, words...)
}

// sign signs the image of a tag.
func (f *formats) sign(ctx context.Context, format, role, tag string) error {
	f.comment(fmt.Sprintf("%s signs %s... as %s (%s)", strings.ToUpper(role), short(f.tags[tag].Digest), tag, format))
	return f.signers[format].Sign(ctx, role, f.tags[tag])
}

func (f *formats) together(ctx context.Context) error {
	var all []string
	for _, format := range signers.Formats() {
		all = append(all, trustRootOf(format))
	}
	if err := f.applyPolicy(ctx, all...).succeeds("configured"); err != nil {
		return err
	}
	if err := f.untilDenied(ctx, "unsigned-in-any", "v2", `role "ci" has not signed`,
		`role "qa" has not signed`); err != nil {
		return err
	}
	if err := f.sign(ctx, signers.Sigstore, signers.CI, "v2"); err != nil {
		return err
	}
	if err := f.denied(ctx, f.demo, "half-signed-in-one", "v2", `role "qa" has not signed `,
		`signed by ci`, trustRootOf(signers.Sigstore)); err != nil {
		return err
	}
	if err := f.sign(ctx, signers.Notation, signers.QA, "v2"); err != nil {
		return err
	}
	return f.pinned(ctx, f.demo, "signed-in-two", "v2")
}

func (f *formats) visible(ctx context.Context) error {
	return f.kubectl(ctx, "get", "imagepolicies,trustroots").succeeds("imagepolicy.countersign.dev/production", "ci,qa",
		"Notary", "Sigstore", "Notation", "SimpleSigning", "TUF")
}

// keep prints what to try.
func (f *formats) keep(context.Context) error {
	f.explain(f.tags["v2"].Tagged(), fmt.Sprintf("The keys of the formats are in folders of %s.\n", f.dir))
	return nil
}
