package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// bothDCT, half and bothCosign are the ways of the steps.
func bothDCT() way    { return way{ci: []string{signCIDCT}, qa: []string{signQADCT}} }
func half() way       { return way{ci: []string{signCICosign}, qa: []string{signQADCT}} }
func bothCosign() way { return way{ci: []string{signCICosign}, qa: []string{signQACosign}} }

func (m *migration) steps() []step {
	return []step{
		{"All on Docker Content Trust",
			`CI and QA sign with the delegations targets/ci and targets/qa. The policy names one trust root.
From here on, Pods with the tag latest, and Pods with an unsigned image, are created all the time.
Each wrong answer ends the demo.`, m.allDCT},
		{"CI moves to cosign, QA stays on Docker Content Trust",
			`The trust root of cosign comes first in the policy. It names the digest that the registry has for
latest, and QA's signature of Docker Content Trust counts for that digest too.`, m.ciMoves},
		{"Both on cosign",
			`QA signs with cosign too. Then the old signatures of latest are removed from the Notary server, so
that the tag can never mean an old release again. The Notary server is no longer needed.`, m.bothMove},
		{"Docker Content Trust removed",
			`The policy names the trust root of cosign alone. The Notary server is stopped for good.`, m.removed},
		{"And back again",
			`The Notary server starts. The same edits lead back, in the opposite order.`, m.back},
	}
}

func (m *migration) allDCT(ctx context.Context) error {
	on := signers.Image{Repository: m.registry.Host + "/acme/app"}
	if err := m.createNamespace(ctx); err != nil {
		return err
	}
	if err := m.shells(ctx, on, makeSigners, addCI, addQA, pinRoot, applyDCT, oftener, waitDCT); err != nil {
		return err
	}
	if err := m.apply(ctx, imagePolicy(m.registry.Host, []string{"acme-dct"}, "ci", "qa")).
		succeeds("created"); err != nil {
		return err
	}
	if err := m.kubectl(ctx, "wait", "--for=condition=Ready", "imagepolicy.countersign.dev/production",
		"--timeout=60s").succeeds("condition met"); err != nil {
		return err
	}
	if _, err := m.until(ctx, patience, pollInterval, "the policy to be in force", func() error {
		return m.dryRunAPI(ctx, m.tags["unsigned"].Tagged()).denied()
	}); err != nil {
		return err
	}
	m.app = &target{image: on.Repository + ":latest"}
	if err := m.release(ctx, bothDCT()); err != nil {
		return err
	}
	unsigned := &target{image: m.tags["unsigned"].Tagged()}
	unsigned.expect(true)
	m.load.create, m.load.targets = m.dryRunAPI, []*target{m.app, unsigned}
	m.load.start(ctx)
	m.stopLater(m.load.stop)
	m.say("The load of creations begins.")
	if err := m.release(ctx, bothDCT()); err != nil {
		return err
	}
	if err := m.newcomer(ctx, "first", bothDCT(), addCI, addQA); err != nil {
		return err
	}
	if err := m.outage(ctx, "fourth"); err != nil {
		return err
	}
	return m.ends(ctx, "all-dct")
}

// outage shows what needs the Notary server while QA signs there: a repository that was never seen.
func (m *migration) outage(ctx context.Context, repository string) error {
	unseen, err := m.push(ctx, "acme/"+repository)
	if err != nil {
		return err
	}
	return m.stopped(ctx, func(ctx context.Context) error {
		if err := m.pins(ctx, "outage-"+repository, m.released); err != nil {
			return err
		}
		m.say("A repository that was never seen cannot be checked now, and is denied:")
		return m.runPod(ctx, repository, unseen.Tagged()).denied(`TrustRoot "acme-dct"`)
	})
}

func (m *migration) ciMoves(ctx context.Context) error {
	if err := m.shells(ctx, m.released, makeCosignKeys, storeCosignKeys); err != nil {
		return err
	}
	if err := m.writeSigstore(); err != nil {
		return err
	}
	if err := m.shells(ctx, m.released, applySigstore, waitSigstore, rootsBoth); err != nil {
		return err
	}
	if err := m.release(ctx, half()); err != nil {
		return err
	}
	if err := m.newcomer(ctx, "second", half(), addCI, addQA); err != nil {
		return err
	}
	if err := m.outage(ctx, "fifth"); err != nil {
		return err
	}
	return m.ends(ctx, "ci-moved")
}

// writeSigstore writes and shows the TrustRoot of cosign.
func (m *migration) writeSigstore() error {
	manifest := fmt.Sprintf(sigstoreRoot, m.registry.Host, indent(string(m.registry.CA.PEM), "      "))
	m.say("acme-sigstore.yaml:\n\n%s", abridged(manifest))
	return os.WriteFile(filepath.Join(m.tools, "acme-sigstore.yaml"), []byte(manifest), 0o600)
}

const sigstoreRoot = `apiVersion: countersign.dev/v1alpha1
kind: TrustRoot
metadata:
  name: acme-sigstore
spec:
  registries:
  - host: %s
    caBundle: |
%s
  sigstore:
    roles:
    - name: ci
      keysFrom: [{kind: ConfigMap, name: cosign-keys, key: ci.pub}]
    - name: qa
      keysFrom: [{kind: ConfigMap, name: cosign-keys, key: qa.pub}]
`

func (m *migration) bothMove(ctx context.Context) error {
	if err := m.release(ctx, bothCosign()); err != nil {
		return err
	}
	m.say("The signatures of Docker Content Trust still name older releases. They are removed:")
	if err := m.shells(ctx, m.released, revokeDCT); err != nil {
		return err
	}
	if err := m.stopped(ctx, func(ctx context.Context) error {
		if err := m.release(ctx, bothCosign()); err != nil {
			return err
		}
		return m.newcomer(ctx, "third", bothCosign())
	}); err != nil {
		return err
	}
	return m.ends(ctx, "both-moved")
}

func (m *migration) removed(ctx context.Context) error {
	if err := m.shells(ctx, m.released, rootsSigstore, deleteDCT); err != nil {
		return err
	}
	if err := m.serve(down); err != nil {
		return err
	}
	m.say("The Notary server is stopped.")
	if err := m.release(ctx, bothCosign()); err != nil {
		return err
	}
	if err := m.newcomer(ctx, "sixth", bothCosign()); err != nil {
		return err
	}
	return m.ends(ctx, "dct-removed")
}

func (m *migration) back(ctx context.Context) error {
	if err := m.serve(up); err != nil {
		return err
	}
	m.say("The Notary server is up again.")
	if err := m.shells(ctx, m.released, applyDCT, oftener, waitDCT, rootsBoth); err != nil {
		return err
	}
	m.say("QA signs with Docker Content Trust again:")
	if err := m.release(ctx, half()); err != nil {
		return err
	}
	m.say("CI does so too:")
	if err := m.release(ctx, bothDCT()); err != nil {
		return err
	}
	if err := m.shells(ctx, m.released, rootsDCT, deleteSigstore); err != nil {
		return err
	}
	if err := m.newcomer(ctx, "seventh", bothDCT(), addCI, addQA); err != nil {
		return err
	}
	return m.ends(ctx, "back-on-dct")
}
