// Package cosign runs the real cosign command, as a publisher uses it: with keys in files, and
// without a transparency log.
package cosign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// The layouts in which cosign stores a signature.
const (
	TagLayout    = "tag"
	BundleLayout = "bundle"
)

// Layouts returns both layouts.
func Layouts() []string { return []string{TagLayout, BundleLayout} }

// Client is the cosign command with its own folder, which has its keys.
type Client struct {
	// Dir is the folder, in which the command runs. Keys are NAME.key and NAME.pub in it. A program
	// sigstore-kms-NAME in it is a plug-in of the command, which has the keys NAME://KEY.
	Dir string
	// Verbose, if set, receives each command line before it runs.
	Verbose func(command string)

	binary string
}

// New builds cosign where needed, and returns a client that trusts a CA for the registry.
func New(ctx context.Context, dir string, ca *tlstest.CA, progress io.Writer) (*Client, error) {
	binary, err := build.Cosign(ctx, progress)
	if err != nil {
		return nil, err
	}
	c := &Client{Dir: dir, binary: binary}
	return c, os.WriteFile(c.file("ca.crt"), ca.PEM, 0o600)
}

// NewClient is New with a fresh folder that the test removes.
func NewClient(t testing.TB, ca *tlstest.CA) *Client {
	t.Helper()
	c, err := New(t.Context(), t.TempDir(), ca, os.Stderr)
	if err != nil {
		t.Fatalf("building cosign: %v", err)
	}
	return c
}

func (c *Client) file(name string) string { return filepath.Join(c.Dir, name) }

// Login stores a user name and a password for a registry.
func (c *Client) Login(host, username, password string) error {
	config, err := json.Marshal(map[string]any{
		"auths": map[string]any{host: map[string]any{"username": username, "password": password}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(c.file("config.json"), config, 0o600)
}

// Run runs the command and returns its output. An error contains the output too.
func (c *Client) Run(ctx context.Context, args ...string) (string, error) {
	if c.Verbose != nil {
		c.Verbose("cosign " + strings.Join(args, " "))
	}
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Dir = c.Dir
	cmd.Env = []string{
		"HOME=" + c.Dir, "DOCKER_CONFIG=" + c.Dir, "SSL_CERT_FILE=" + c.file("ca.crt"),
		"PATH=" + c.Dir + string(os.PathListSeparator) + os.Getenv("PATH"), "COSIGN_PASSWORD=", "COSIGN_YES=true",
	}
	process.Tie(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("cosign %s: %w\n%s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), nil
}

// GenerateKey makes a key pair of a name, ECDSA on P-256 as cosign does, and returns the public key
// in PEM.
func (c *Client) GenerateKey(ctx context.Context, name string) (string, error) {
	if _, err := c.Run(ctx, "generate-key-pair", "--output-key-prefix", name); err != nil {
		return "", err
	}
	return c.public(name)
}

// ImportKey makes a key pair of a name from a private key, and returns the public key in PEM.
func (c *Client) ImportKey(ctx context.Context, name string, private crypto.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", err
	}
	imported := c.file(name + ".pem")
	if err := os.WriteFile(imported, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		0o600); err != nil {
		return "", err
	}
	if _, err := c.Run(ctx, "import-key-pair", "--key", imported, "--output-key-prefix", name); err != nil {
		return "", err
	}
	return c.public(name)
}

// Shell returns indented lines of shell script that define "cosign" as this client.
func (c *Client) Shell(indent string) string {
	return fmt.Sprintf("%salias cosign=%s\n%[1]sexport SSL_CERT_FILE=%[3]s COSIGN_PASSWORD= COSIGN_YES=true", indent,
		c.binary, c.file("ca.crt"))
}

func (c *Client) public(name string) (string, error) {
	public, err := os.ReadFile(c.file(name + ".pub"))
	return string(public), err
}

// Sign signs an image, named by its digest, with a key in a layout.
func (c *Client) Sign(ctx context.Context, image, key, layout string, more ...string) error {
	return c.SignAll(ctx, []string{image}, key, layout, more...)
}

// SignAll signs several images with one command.
func (c *Client) SignAll(ctx context.Context, images []string, key, layout string, more ...string) error {
	return c.publish(ctx, images, key, layout, "sign", more)
}

// Attest attaches an attestation: a predicate of a type, signed with a key.
func (c *Client) Attest(ctx context.Context, image, key, layout, predicateType, predicate string) error {
	if err := os.WriteFile(c.file("predicate.json"), []byte(predicate), 0o600); err != nil {
		return err
	}
	return c.publish(ctx, []string{image}, key, layout, "attest", []string{
		"--type", predicateType, "--predicate", c.file("predicate.json"),
	})
}

func (c *Client) publish(ctx context.Context, images []string, key, layout, command string, more []string) error {
	if !strings.Contains(key, "://") {
		key = c.file(key + ".key")
	}
	args := []string{
		command, "--key", key, "--use-signing-config=false", "--tlog-upload=false",
		fmt.Sprintf("--new-bundle-format=%t", layout == BundleLayout),
	}
	_, err := c.Run(ctx, slices.Concat(args, more, images)...)
	return err
}
