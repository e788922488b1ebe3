// Package notation runs the real notation command, as a publisher uses it: with keys in files.
package notation

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
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// The envelopes in which notation signs.
const (
	JWS  = "jws"
	COSE = "cose"
)

// overTLS names a registry on loopback by its address. By the name localhost, notation reads it
// over plain http.
func overTLS(image string) string {
	if rest, ok := strings.CutPrefix(image, "localhost:"); ok {
		return "127.0.0.1:" + rest
	}
	return image
}

// Client is the notation command with its own configuration.
type Client struct {
	// Dir is the folder above the configuration, notation.
	Dir string
	// Verbose, if set, receives each command line before it runs.
	Verbose func(command string)

	binary string
	keys   []any
}

// New builds notation where needed, and returns a client that trusts a CA for the registry.
func New(ctx context.Context, dir string, ca *tlstest.CA, progress io.Writer) (*Client, error) {
	binary, err := build.Notation(ctx, progress)
	if err != nil {
		return nil, err
	}
	c := &Client{Dir: dir, binary: binary}
	if err := os.MkdirAll(c.file("notation/localkeys"), 0o700); err != nil {
		return nil, err
	}
	return c, os.WriteFile(c.file("ca.crt"), ca.PEM, 0o600)
}

// NewClient is New with a fresh folder that the test removes.
func NewClient(t testing.TB, ca *tlstest.CA) *Client {
	t.Helper()
	c, err := New(t.Context(), t.TempDir(), ca, os.Stderr)
	if err != nil {
		t.Fatalf("building notation: %v", err)
	}
	return c
}

func (c *Client) file(name string) string { return filepath.Join(c.Dir, name) }

// Run runs the command and returns its output. An error contains the output too.
func (c *Client) Run(ctx context.Context, args ...string) (string, error) {
	if c.Verbose != nil {
		c.Verbose("notation " + strings.Join(args, " "))
	}
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Dir = c.Dir
	cmd.Env = []string{
		"HOME=" + c.Dir, "XDG_CONFIG_HOME=" + c.Dir, "XDG_CACHE_HOME=" + c.Dir, "XDG_DATA_HOME=" + c.Dir,
		"DOCKER_CONFIG=" + c.Dir, "PATH=" + os.Getenv("PATH"), "SSL_CERT_FILE=" + c.file("ca.crt"),
	}
	process.Tie(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("notation %s: %w\n%s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), nil
}

// AddKey gives notation a key of a name, with the chain of its certificate.
func (c *Client) AddKey(name string, key crypto.PrivateKey, chain ...*x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	keyFile, certFile := c.file("notation/localkeys/"+name+".key"), c.file("notation/localkeys/"+name+".crt")
	if err := os.WriteFile(
		keyFile,
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		0o600,
	); err != nil {
		return err
	}
	if err := os.WriteFile(certFile, encode(chain), 0o600); err != nil {
		return err
	}
	c.keys = append(c.keys, map[string]string{"name": name, "keyPath": keyFile, "certPath": certFile})
	config, err := json.Marshal(map[string]any{"keys": c.keys})
	if err != nil {
		return err
	}
	return os.WriteFile(c.file("notation/signingkeys.json"), config, 0o600)
}

func encode(chain []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// Sign signs an image, named by its digest, with a key in an envelope.
func (c *Client) Sign(ctx context.Context, image, key, envelope string, more ...string) error {
	args := append([]string{"sign", "--key", key, "--signature-format", envelope}, more...)
	_, err := c.Run(ctx, append(args, overTLS(image))...)
	return err
}

// Trust makes notation trust certificates, and the subjects that they may have, for all images. It
// replaces what notation trusted before.
func (c *Client) Trust(identities []string, certificates ...*x509.Certificate) error {
	store := c.file("notation/truststore/x509/ca/acme")
	if err := os.RemoveAll(store); err != nil {
		return err
	}
	if err := os.MkdirAll(store, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(store, "ca.crt"), encode(certificates), 0o600); err != nil {
		return err
	}
	policy, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{map[string]any{
		"name": "acme", "registryScopes": []string{"*"}, "signatureVerification": map[string]string{"level": "strict"},
		"trustStores": []string{"ca:acme"}, "trustedIdentities": identities,
	}}})
	if err != nil {
		return err
	}
	return os.WriteFile(c.file("notation/trustpolicy.json"), policy, 0o600)
}

// Verify reports whether notation itself accepts an image, and what it says.
func (c *Client) Verify(ctx context.Context, image string) (accepted bool, says string) {
	says, err := c.Run(ctx, "verify", overTLS(image))
	return err == nil, says
}
