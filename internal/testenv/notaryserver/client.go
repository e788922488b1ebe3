package notaryserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// Passphrase is that of the keys of clients, which exist for one run only.
const Passphrase = "demo-passphrase"

// Client is the real notary command with its own trust directory, as a publisher uses it.
type Client struct {
	// Dir is the trust directory. It holds private keys, and the metadata that the command read
	// last.
	Dir string
	// Verbose, if set, is called with each command line before it runs.
	Verbose func(command string)

	notary *Server
}

// NewClient returns a client with a fresh trust directory.
func (n *Server) NewClient() (*Client, error) {
	dir, err := os.MkdirTemp(n.dir, "trust-")
	if err != nil {
		return nil, fmt.Errorf("making a trust directory: %w", err)
	}
	return &Client{Dir: dir, notary: n}, nil
}

// RunClient returns a client of a Notary server with a fresh trust directory.
func RunClient(t testing.TB, n *Server) *Client {
	t.Helper()
	c, err := n.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Run runs the notary command and returns its output. An error contains the output too.
func (c *Client) Run(ctx context.Context, args ...string) (string, error) {
	if c.Verbose != nil {
		c.Verbose("notary " + strings.Join(args, " "))
	}
	full := append([]string{
		"-s", c.notary.URL, "-d", c.Dir, "--tlscacert", filepath.Join(c.notary.dir, "ca.crt"),
	}, args...)
	if c.notary.options.ClientCertificates {
		file := filepath.Join(c.notary.dir, publisher)
		full = append([]string{"--tlscert", file + ".crt", "--tlskey", file + ".key"}, full...)
	}
	cmd := exec.CommandContext(ctx, c.notary.binaries.Client, full...)
	cmd.Dir = c.Dir
	cmd.Env = []string{
		"HOME=" + c.Dir, "PATH=" + os.Getenv("PATH"),
		"NOTARY_ROOT_PASSPHRASE=" + Passphrase, "NOTARY_TARGETS_PASSPHRASE=" + Passphrase,
		"NOTARY_SNAPSHOT_PASSPHRASE=" + Passphrase, "NOTARY_DELEGATION_PASSPHRASE=" + Passphrase,
	}
	if auth := c.notary.options.Auth; auth != nil {
		cmd.Env = append(cmd.Env,
			"NOTARY_AUTH="+base64.StdEncoding.EncodeToString([]byte(auth.Username+":"+auth.Password)))
	}
	process.Tie(cmd)
	var out bytes.Buffer
	cmd.Stdin = strings.NewReader("yes\n") // a root rotation asks for confirmation
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("notary %s: %w\n%s", strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), nil
}

func (c *Client) run(ctx context.Context, args ...string) error {
	_, err := c.Run(ctx, args...)
	return err
}

// Init creates and publishes a repository. The first call makes the root key; later calls reuse it.
func (c *Client) Init(ctx context.Context, gun string) error {
	return c.run(ctx, "init", "-p", gun)
}

// RotateSnapshotKey makes the server hold the snapshot key. Delegations need that.
func (c *Client) RotateSnapshotKey(ctx context.Context, gun string) error {
	return c.run(ctx, "key", "rotate", gun, "snapshot", "-r")
}

// RotateTimestampKey makes the server create a new timestamp key.
func (c *Client) RotateTimestampKey(ctx context.Context, gun string) error {
	return c.run(ctx, "key", "rotate", gun, "timestamp", "-r")
}

// RotateRoot replaces the root key. The old key signs the new root too.
func (c *Client) RotateRoot(ctx context.Context, gun string) error {
	if err := c.run(ctx, "key", "rotate", gun, "root"); err != nil {
		return err
	}
	return c.run(ctx, "list", gun) // the command stores the new root only at its next read
}

// RotateTargetsKey replaces the targets key, which this client holds, and signs targets again.
func (c *Client) RotateTargetsKey(ctx context.Context, gun string) error {
	return c.run(ctx, "key", "rotate", gun, "targets")
}

// RotateOwnSnapshotKey replaces the snapshot key with one that this client holds. The client signs
// all snapshots from then on.
func (c *Client) RotateOwnSnapshotKey(ctx context.Context, gun string) error {
	return c.run(ctx, "key", "rotate", gun, "snapshot")
}

// AddDelegation adds keys to a delegation such as "targets/ci". They may sign the tags that begin
// with one of paths; without paths, all tags. It does not import the private keys: see ImportKey.
func (c *Client) AddDelegation(ctx context.Context, gun, role string, keys []*SigningKey, paths ...string) error {
	args := []string{"delegation", "add", "-p", gun, role}
	for i, key := range keys {
		file := filepath.Join(c.Dir, fmt.Sprintf("%s-%d.crt", strings.ReplaceAll(role, "/", "_"), i))
		if err := os.WriteFile(file, key.PublicPEM, 0o644); err != nil {
			return fmt.Errorf("writing the key of %s: %w", role, err)
		}
		args = append(args, file)
	}
	if len(paths) == 0 {
		args = append(args, "--all-paths")
	}
	for _, p := range paths {
		args = append(args, "--paths", p)
	}
	return c.run(ctx, args...)
}

// ImportKey stores the private key of a delegation in the trust directory, so that this client can
// sign with it.
func (c *Client) ImportKey(ctx context.Context, gun, role string, key *SigningKey) error {
	file := filepath.Join(c.Dir, "import.key")
	if err := os.WriteFile(file, key.PrivatePEM, 0o600); err != nil {
		return fmt.Errorf("writing the key of %s: %w", role, err)
	}
	defer os.Remove(file)
	return c.run(ctx, "key", "import", file, "--role", role, "-g", gun)
}

// RemoveDelegationKey removes one key from a delegation, and publishes that. Signatures of this key
// alone then no longer count.
func (c *Client) RemoveDelegationKey(ctx context.Context, gun, role string, key *SigningKey) error {
	return c.run(ctx, "delegation", "remove", "-p", gun, role, key.KeyID)
}

// Witness signs the content of delegations again, with keys that this client holds, and publishes
// it.
func (c *Client) Witness(ctx context.Context, gun string, roles ...string) error {
	return c.run(ctx, append([]string{"witness", "-p", gun}, roles...)...)
}

// RemoveDelegation removes a delegation with all its signatures from a repository, and publishes
// that.
func (c *Client) RemoveDelegation(ctx context.Context, gun, role string) error {
	return c.run(ctx, "delegation", "remove", "-p", "-y", gun, role)
}

// AddHash signs a tag in the given roles, and publishes it. Without roles it signs in targets.
func (c *Client) AddHash(ctx context.Context, gun, tag string, size int64, sha256hex string, roles ...string) error {
	args := []string{"addhash", "-p", gun, tag, strconv.FormatInt(size, 10), "--sha256", sha256hex}
	for _, role := range roles {
		args = append(args, "-r", role)
	}
	return c.run(ctx, args...)
}

// Remove removes a tag from the given roles, and publishes that.
func (c *Client) Remove(ctx context.Context, gun, tag string, roles ...string) error {
	args := []string{"remove", "-p", gun, tag}
	for _, role := range roles {
		args = append(args, "-r", role)
	}
	return c.run(ctx, args...)
}

// CreateRepository makes a repository whose snapshots the server signs. For each role it adds a
// delegation "targets/<role>" with a new key, which this client holds.
func (c *Client) CreateRepository(ctx context.Context, gun string, roles ...string) (map[string]*SigningKey, error) {
	if err := c.Init(ctx, gun); err != nil {
		return nil, err
	}
	if err := c.RotateSnapshotKey(ctx, gun); err != nil {
		return nil, err
	}
	keys := make(map[string]*SigningKey, len(roles))
	for _, role := range roles {
		key, err := NewSigningKey(ECDSA256, gun)
		if err != nil {
			return nil, err
		}
		if err := c.AddDelegation(ctx, gun, "targets/"+role, []*SigningKey{key}); err != nil {
			return nil, err
		}
		if err := c.ImportKey(ctx, gun, role, key); err != nil {
			return nil, err
		}
		keys[role] = key
	}
	return keys, nil
}

// Shell returns indented lines of shell script that define "notary" as this client.
func (c *Client) Shell(indent string) string {
	lines := []string{
		fmt.Sprintf("alias notary='%s -s %s -d %s --tlscacert %s'", c.notary.binaries.Client, c.notary.URL, c.Dir,
			filepath.Join(c.notary.dir, "ca.crt")),
		fmt.Sprintf(
			"export NOTARY_ROOT_PASSPHRASE=%s NOTARY_TARGETS_PASSPHRASE=%[1]s NOTARY_SNAPSHOT_PASSPHRASE=%[1]s "+
				"NOTARY_DELEGATION_PASSPHRASE=%[1]s", Passphrase),
	}
	return indent + strings.Join(lines, "\n"+indent)
}
