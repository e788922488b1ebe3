//go:build clients

package clients

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/simplesigning"
)

// TestMain installs the clients where they are missing. Without them it fails: a test that is
// skipped proves nothing.
func TestMain(m *testing.M) {
	if err := install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// install finds the clients, and installs Debian's packages of those that are missing.
func install(ctx context.Context) error {
	var missing []string
	for tool, pkg := range map[string]string{"gpg": "gnupg", "skopeo": "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	names := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("missing on this machine, by the names that Debian gives their packages: %s; install them, "+
			"or run this as root where there is apt-get", names)
	}
	fmt.Fprintln(os.Stderr, "installing packages with apt-get:", names)
	for _, args := range [][]string{
		{"update"}, append([]string{"install", "--yes", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w; install %s yourself\n%s", args[0], err, names, out)
		}
	}
	return nil
}

// bed has a registry, a lookaside server, and a home of GnuPG.
type bed struct {
	*testing.T
	registry *distribution.Server
	// sigs is the folder that the lookaside server serves, and home the one of GnuPG.
	sigs, home, config string
	lookaside          *httptest.Server
	ca                 *tlstest.CA
	// ahead is by how much the clock of trust roots is ahead.
	ahead time.Duration
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{T: t, registry: distribution.Run(t, distribution.Options{}), sigs: t.TempDir(), config: t.TempDir()}
	var err error
	b.home, err = os.MkdirTemp("", "gpg-") //nolint:usetesting // the path of a socket in it has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.command("gpgconf", "--kill", "all")
		os.RemoveAll(b.home)
	})
	if b.ca, err = tlstest.NewCA("lookaside"); err != nil {
		t.Fatal(err)
	}
	cert, err := b.ca.Issue(pkix.Name{CommonName: "lookaside"})
	if err != nil {
		t.Fatal(err)
	}
	b.lookaside = httptest.NewUnstartedServer(http.StripPrefix("/containers", http.FileServer(http.Dir(b.sigs))))
	b.lookaside.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	b.lookaside.Config.ErrorLog = log.New(io.Discard, "", 0)
	b.lookaside.StartTLS()
	t.Cleanup(b.lookaside.Close)
	b.write("ca.crt", string(b.registry.CA.PEM))
	b.write("registries.d/default.yaml", fmt.Sprintf("default-docker:\n  lookaside: file://%s\n", b.sigs))
	return b
}

func (b *bed) write(name, content string) string {
	b.Helper()
	file := filepath.Join(b.config, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}

func (b *bed) command(tool string, args ...string) (string, error) {
	var errors bytes.Buffer
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+b.home)
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", tool, strings.Join(args, " "), err, errors.String())
	}
	return string(out), nil
}

func (b *bed) run(tool string, args ...string) string {
	b.Helper()
	out, err := b.command(tool, args...)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// gpg runs gpg without a passphrase.
func (b *bed) gpg(args ...string) string {
	b.Helper()
	return b.run("gpg", append([]string{
		"--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", "",
	}, args...)...)
}

// key makes a key, and returns its fingerprint.
func (b *bed) key(user, algorithm, usage, expire string) string {
	b.Helper()
	b.gpg("--quick-generate-key", user+" <"+user+"@example.com>", algorithm, usage, expire)
	for line := range strings.SplitSeq(b.gpg("--list-keys", "--with-colons", user+"@example.com"), "\n") {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	b.Fatalf("gpg lists no key of %s", user)
	return ""
}

// export returns the public part of a key.
func (b *bed) export(id string) string {
	b.Helper()
	return b.gpg("--armor", "--export", "--export-options", "export-minimal", id)
}

// skopeo runs skopeo with the registry and the lookaside folder.
func (b *bed) skopeo(args ...string) (string, error) {
	return b.command("skopeo", append([]string{"--registries.d", filepath.Join(b.config, "registries.d")}, args...)...)
}

// copy copies a tag, as users sign.
func (b *bed) copy(from, to string, args ...string) {
	b.Helper()
	args = append([]string{
		"--insecure-policy", "copy", "--src-cert-dir", b.config, "--dest-cert-dir", b.config,
	}, args...)
	if out, err := b.skopeo(append(args, "docker://"+b.name(from), "docker://"+b.name(to))...); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// name returns the reference of an image in the registry.
func (b *bed) name(rest string) string { return b.registry.Host + "/" + rest }

// push pushes a new image, and returns its digest.
func (b *bed) push(as string) string {
	b.Helper()
	image, err := random.Image(64, 1)
	if err != nil {
		b.Fatal(err)
	}
	ref, err := name.ParseReference(b.name(as))
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(ref, image, b.registry.Options(b.Context())...); err != nil {
		b.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		b.Fatal(err)
	}
	return digest.String()
}

// put puts a signature on a digest of a repository on the lookaside server.
func (b *bed) put(repository, digest string, n int, signature string) {
	b.Helper()
	dir := filepath.Join(b.sigs, repository+"@"+strings.Replace(digest, ":", "=", 1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("signature-%d", n)), []byte(signature), 0o600); err != nil {
		b.Fatal(err)
	}
}

// accepts reports whether skopeo accepts an image by a policy that requires a signature by a key.
func (b *bed) accepts(image, key, identity string) bool {
	b.Helper()
	file := b.write("key.asc", key)
	policy := b.write("policy.json", fmt.Sprintf(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":%q,`+
		`"signedIdentity":%s}]}`, file, identity))
	_, err := b.skopeo("--policy", policy, "copy", "--src-cert-dir", b.config, "docker://"+b.name(image),
		"dir:"+b.TempDir())
	return err == nil
}

// root returns the trust root of roles with one key each, by "name: key".
func (b *bed) root(edit func(*v1alpha1.SimpleSigningSpec), keys map[string]string) trust.Root {
	b.Helper()
	tr := &v1alpha1.TrustRoot{}
	tr.Spec.Registries = []v1alpha1.Registry{{
		Host: b.registry.Host, CABundle: v1alpha1.RegistryCABundle(b.registry.CA.PEM),
	}}
	spec := &v1alpha1.SimpleSigningSpec{
		Lookaside:         strings.Replace(b.lookaside.URL, "127.0.0.1", "localhost", 1) + "/containers",
		LookasideCABundle: v1alpha1.RegistryCABundle(b.ca.PEM),
	}
	for role, key := range keys {
		spec.Roles = append(spec.Roles, v1alpha1.SimpleSigningRole{
			Name: v1alpha1.RoleName(role), Keys: []v1alpha1.OpenPGPKey{v1alpha1.OpenPGPKey(key)},
		})
	}
	if edit != nil {
		edit(spec)
	}
	tr.Spec.SimpleSigning = spec
	root, err := simplesigning.Format{Clock: func() time.Time { return time.Now().Add(b.ahead) }}.Build(tr, nil)
	if err != nil {
		b.Fatal(err)
	}
	return root
}

// signed returns the roles that have signed an image, as a decision finds them: the registry names
// the digest of a tag, and the signatures on it count for the tag.
func (b *bed) signed(root trust.Root, image string) []string {
	b.Helper()
	ref, err := imageref.Parse(b.name(image))
	if err != nil {
		b.Fatal(err)
	}
	named := ref
	if ref.Digest == "" {
		hints, err := root.Fetch(b.Context(), root.Subject(ref), nil)
		if err != nil {
			b.Fatal(err)
		}
		if len(hints.Hints(ref.Tag)) != 1 {
			b.Fatalf("got the digests %v for %s, want one", hints.Hints(ref.Tag), image)
		}
		named.Digest = hints.Hints(ref.Tag)[0]
	}
	e, err := root.Fetch(b.Context(), root.Subject(named), nil)
	if err != nil {
		b.Fatal(err)
	}
	var roles []string
	for _, st := range e.Statements(ref.Tag, "") {
		if !st.TagOnly && st.Digest == named.Digest {
			roles = append(roles, st.Role)
		}
	}
	for _, r := range e.Rejected([]string{"ci", "qa"}, ref.Tag, "") {
		b.Logf("%s: %s %s", image, r.By, r.Why)
	}
	return roles
}
