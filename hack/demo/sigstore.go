package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
)

const (
	issuer   = "https://token.example.com"
	workflow = "https://git.example.com/acme/app/release.yaml@refs/heads/main"
	branch   = "https://git.example.com/acme/app/release.yaml@refs/heads/experiment"
)

// sigstore is the story of images that cosign signs.
type sigstore struct {
	*demo
	images
	cosign   *cosign.Client
	instance *sigstoreinstance.Instance
}

func (s *sigstore) servers() []server {
	return []server{
		{"Starting a TLS registry, and pushing newly made images to it", s.startRegistry},
		{"Building cosign", s.startCosign},
		{
			"Making a Sigstore instance: a certificate authority and the keys of its transparency logs",
			s.startInstance,
		},
	}
}

func (s *sigstore) startRegistry(ctx context.Context) error {
	return s.start(ctx, s.demo, "v1", "v2", "v3", "v4", "v5")
}

func (s *sigstore) startCosign(ctx context.Context) error {
	dir, err := s.subdir("cosign")
	if err != nil {
		return err
	}
	s.cosign, err = cosign.New(ctx, dir, s.registry.CA, s.out)
	return err
}

func (s *sigstore) startInstance(context.Context) error {
	s.instance = sigstoreinstance.New(must{})
	return os.WriteFile(s.file("trusted_root.json"), s.instance.TrustedRoot(), 0o600)
}

// must ends the demo where an instance cannot be made, as testing.TB does for a test.
type must struct{}

func (must) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (must) Helper() {}

// file returns the path of a file in cosign's folder.
func (s *sigstore) file(name string) string { return filepath.Join(s.cosign.Dir, name) }

// signAs signs an image with a new key, for which the instance issues a certificate of a subject.
// cosign stores the signature.
func (s *sigstore) signAs(ctx context.Context, subject, tag string) error {
	on := s.tags[tag]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":`+
		`{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, on.Repository,
		on.Digest)
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return err
	}
	cert := s.instance.Certify(key.Public(), sigstoreinstance.Certificate{Issuer: issuer, Subject: subject})
	entry := s.instance.EntryV1(&sigstoreinstance.Signed{Signature: sig, Certificate: cert, Message: payload},
		s.instance.Time.Add(time.Minute))
	logged, err := json.Marshal(map[string]any{"rekorBundle": map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload": map[string]any{
			"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(),
			"logIndex": entry.GetLogIndex(), "logID": hex.EncodeToString(entry.GetLogId().GetKeyId()),
		},
	}})
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"payload.json": payload, "signature": []byte(base64.StdEncoding.EncodeToString(sig)), "entry.json": logged,
		"certificate.pem": []byte(sigstoreinstance.PEM(cert)),
		"chain.pem":       []byte(sigstoreinstance.PEM(s.instance.Fulcio.Intermediate, s.instance.Fulcio.Root)),
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			return err
		}
	}
	_, err = s.cosign.Run(ctx, "attach", "signature", "--payload", "payload.json", "--signature", "signature",
		"--certificate", "certificate.pem", "--certificate-chain", "chain.pem", "--rekor-response", "entry.json",
		on.ByDigest())
	return err
}

// sign signs the image of a tag with a key.
func (s *sigstore) sign(ctx context.Context, key, layout, tag string) error {
	return s.cosign.Sign(ctx, s.tags[tag].ByDigest(), key, layout)
}

// keep starts the registry again, and prints how to sign.
func (s *sigstore) keep(ctx context.Context) error {
	if err := s.registry.Restart(ctx); err != nil {
		return err
	}
	s.explain(s.tags["v4"].Tagged(), fmt.Sprintf(`The registry is up again. To sign as CI and QA with cosign:

%s
  cd %s
  cosign sign --key ci.key --use-signing-config=false --tlog-upload=false %s
  cosign sign --key qa.key --use-signing-config=false --tlog-upload=false %[3]s
`, s.cosign.Shell("  "), s.cosign.Dir, s.tags["v1"].ByDigest()))
	return nil
}

// trustRoot returns a TrustRoot of the roles ci and qa by their keys. With identities, the workflow
// may sign for ci too. With provenance, that is a further role.
func (s *sigstore) trustRoot(identities, provenance bool) string {
	ci, more := "", ""
	if identities {
		ci = `
      identities:
      - issuer: ` + issuer + `
        subject: ` + workflow
		more = `
    trustedRoot:
      from: {kind: ConfigMap, name: trusted-root, key: trusted_root.json}`
	}
	if provenance {
		more = `
    - name: provenance
      keysFrom: [{kind: ConfigMap, name: cosign-keys, key: builder.pub}]
      attestation:
        predicateType: https://slsa.dev/provenance/v1
        conditions:
        - ` + condition + more
	}
	return fmt.Sprintf(`
apiVersion: countersign.dev/v1alpha1
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
      keysFrom: [{kind: ConfigMap, name: cosign-keys, key: ci.pub}]%s
    - name: qa
      keysFrom: [{kind: ConfigMap, name: cosign-keys, key: qa.pub}]%s
`, s.registry.Host, indent(string(s.registry.CA.PEM), "      "), ci, more)
}

func (s *sigstore) policy(roles ...string) string {
	return imagePolicy(s.registry.Host, []string{"acme-sigstore"}, roles...)
}

const (
	hosted    = "https://example.com/builders/hosted"
	laptop    = "https://example.com/builders/laptop"
	condition = "predicate.runDetails.builder.id == '" + hosted + "'"
)

// predicate returns a provenance (SLSA 1.0) by a builder.
func predicate(builder string) string {
	return fmt.Sprintf(`{
  "buildDefinition": {
    "buildType": "https://example.com/build/v1",
    "externalParameters": {"repository": "https://git.example.com/acme/app", "ref": "refs/heads/main"},
    "internalParameters": {},
    "resolvedDependencies": []
  },
  "runDetails": {"builder": {"id": %q}, "metadata": {"invocationId": "https://example.com/runs/17"}}
}`, builder)
}
