package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// runMain is the variable with which a test runs its own binary as the command.
const runMain = "COUNTERSIGN_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The tags of the images of a bed, which say who has signed.
const (
	both   = "both"
	onlyCI = "only-ci"
	none   = "none"
)

// bed has real servers with an image of each kind for each format.
type bed struct {
	registry *distribution.Server
	roots    map[string]v1alpha1.TrustRootSpec // by format
	images   map[string]map[string]signers.Image
	signers  map[string]signers.Signer
}

// newBed starts the servers of some formats, and pushes and signs their images.
func newBed(t *testing.T, formats ...string) *bed {
	t.Helper()
	b := &bed{
		registry: distribution.Run(t, distribution.Options{}), roots: map[string]v1alpha1.TrustRootSpec{},
		images: map[string]map[string]signers.Image{},
	}
	all := map[string]signers.Signer{}
	b.signers = all
	for _, format := range formats {
		signer, err := signers.Start(t.Context(), format, signers.Options{
			Registry: b.registry, Dir: t.TempDir(), Progress: os.Stderr,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := signer.Stop(); err != nil {
				t.Errorf("stopping the servers of %s: %v", format, err)
			}
		})
		all[format], b.images[format] = signer, map[string]signers.Image{}
		for _, tag := range []string{both, onlyCI, none} {
			if b.images[format][tag], err = signers.Push(t.Context(), b.registry, "acme/"+format, tag); err != nil {
				t.Fatal(err)
			}
		}
	}
	group, ctx := errgroup.WithContext(t.Context())
	for format, signer := range all {
		group.Go(func() error { return sign(ctx, signer, b.images[format]) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for format, signer := range all {
		spec, err := signer.Spec()
		if err != nil {
			t.Fatal(err)
		}
		b.roots[format] = spec
	}
	return b
}

func sign(ctx context.Context, signer signers.Signer, images map[string]signers.Image) error {
	for _, s := range []struct{ role, tag string }{{"ci", both}, {"qa", both}, {"ci", onlyCI}} {
		if err := signer.Sign(ctx, s.role, images[s.tag]); err != nil {
			return fmt.Errorf("%s for %s: %w", s.role, s.tag, err)
		}
	}
	return nil
}

// root returns the TrustRoot of a format.
func (b *bed) root(format string) *v1alpha1.TrustRoot {
	tr := v1alpha1.TrustRoot{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "TrustRoot"},
		ObjectMeta: metav1.ObjectMeta{Name: rootName(format)}, Spec: b.roots[format],
	}
	return tr.DeepCopy()
}

// rootName returns the name of the TrustRoot of a format.
func rootName(format string) string {
	if format == signers.SimpleSigning {
		return "simple-signing"
	}
	return format
}

// imagePolicy returns a policy.
func imagePolicy(name string, spec v1alpha1.ImagePolicySpec) *v1alpha1.ImagePolicy {
	return &v1alpha1.ImagePolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ImagePolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}
}

// writeObjects writes objects into a file of a folder.
func writeObjects(t *testing.T, folder, name string, objects ...any) string {
	t.Helper()
	path := filepath.Join(folder, name)
	var content []byte
	for _, o := range objects {
		one, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		content = append(append(content, "---\n"...), one...)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
