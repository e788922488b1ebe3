// Command minute shows the command line without a cluster. It starts a registry on this machine's
// loopback interface, pushes an image that ci and qa have signed and one that only ci has, writes
// the policy into a folder, and runs the commands. The signatures are those of cosign, by keys that
// it makes. With -keep the registry runs until Ctrl-C.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
)

func main() {
	keep := flag.Bool("keep", os.Getenv("KEEP") != "", "leave the registry running until Ctrl-C (also: KEEP=1)")
	binary := flag.String("binary", "bin/kubectl-countersign", "the command line")
	folder := flag.String("policies", "bin/policies", "the folder into which the policies are written")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *binary, *folder, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "minute:", err)
		os.Exit(1)
	}
}

// run starts the registry, fills it, and runs the commands.
func run(ctx context.Context, out io.Writer, binary, folder string, keep bool) (err error) {
	registry, err := registryserver.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Stop()) }()
	keys := map[string]*ecdsa.PrivateKey{}
	for _, role := range []string{"ci", "qa"} {
		if keys[role], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
	}
	for tag, signers := range map[string][]*ecdsa.PrivateKey{"v1": {keys["ci"], keys["qa"]}, "v2": {keys["ci"]}} {
		if err := push(ctx, registry, tag, signers...); err != nil {
			return err
		}
	}
	if err := writePolicies(folder, registry, keys); err != nil {
		return err
	}
	config, err := filepath.Abs(filepath.Join(filepath.Dir(folder), "config"))
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"verify", "--policies", folder, registry.Host + "/acme/app:v1"},
		{"verify", "--policies", folder, registry.Host + "/acme/app:v2"},
		{"inspect", "--policies", folder, registry.Host + "/acme/app"},
	} {
		fmt.Fprintf(out, "$ %s %s\n", binary, strings.Join(args, " "))
		c := exec.CommandContext(ctx, binary, args...)
		c.Stdout, c.Stderr = out, out
		c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+config) // has the keys seen
		if err := c.Run(); err != nil && c.ProcessState.ExitCode() != 1 {
			return fmt.Errorf("running %s: %w", binary, err)
		}
		fmt.Fprintln(out)
	}
	if keep {
		fmt.Fprintln(out, "The registry runs until Ctrl-C.")
		<-ctx.Done()
	}
	return nil
}

// push pushes an image and signs it with keys, as cosign sign --key does.
func push(ctx context.Context, registry *registryserver.Server, tag string, keys ...*ecdsa.PrivateKey) error {
	on, err := registry.Push(ctx, "acme/app:"+tag)
	if err != nil {
		return err
	}
	signatures := mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json")
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":`+
		`{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, on.Repository,
		on.Digest)
	for _, key := range keys {
		sum := sha256.Sum256(payload)
		signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			return err
		}
		signatures, err = mutate.Append(signatures, mutate.Addendum{
			Layer: static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
			Annotations: map[string]string{
				"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature),
			},
		})
		if err != nil {
			return err
		}
	}
	ref, err := name.NewTag(on.Repository + ":sha256-" + on.Hex + ".sig")
	if err != nil {
		return err
	}
	return remote.Write(ref, signatures, registry.Options(ctx)...)
}

// policies are the objects, with the host, its CA and the keys to be filled in.
const policies = `apiVersion: countersign.dev/v1alpha1
kind: ImagePolicy
metadata:
  name: production
spec:
  images: ["HOST/acme/**"]
  trustRoots: [acme-sigstore]
  requiredRoles:
  - role: ci
  - role: qa
---
apiVersion: countersign.dev/v1alpha1
kind: TrustRoot
metadata:
  name: acme-sigstore
spec:
  registries:
  - host: HOST
    caBundle: |
      CA
  sigstore:
    roles:
    - name: ci
      keys:
      - |
        KEY-ci
    - name: qa
      keys:
      - |
        KEY-qa
`

// writePolicies writes the policies into a folder.
func writePolicies(folder string, registry *registryserver.Server, keys map[string]*ecdsa.PrivateKey) error {
	content := strings.ReplaceAll(policies, "HOST", registry.Host)
	content = strings.Replace(content, "      CA\n", "      "+indented(string(registry.CA.PEM), 6), 1)
	for role, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		content = strings.Replace(content, "KEY-"+role+"\n", indented(string(public), 8), 1)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "production.yaml"), []byte(content), 0o644)
}

// indented indents every line but the first.
func indented(text string, by int) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", by)) + "\n"
}
