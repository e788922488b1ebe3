// Package formats tests that a role is the same in every signature format: roles that are proven in
// different formats count together.
package formats

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/internal/trust/notation"
	"github.com/countersign-dev/countersign/internal/trust/sigstore"
	"github.com/countersign-dev/countersign/internal/trust/simplesigning"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
	"github.com/countersign-dev/countersign/test/gate"
)

func TestMain(m *testing.M) {
	if isPlugin() {
		os.Exit(runPlugin())
	}
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// formats has each format by its name in the tables, and an edit of its trust root after which no
// server is reached.
func formats() map[string]struct {
	format trust.Format
	broken func(*v1alpha1.TrustRootSpec)
} {
	noCA := func(spec *v1alpha1.TrustRootSpec) { spec.Registries = nil }
	return map[string]struct {
		format trust.Format
		broken func(*v1alpha1.TrustRootSpec)
	}{
		signers.Notary:   {notary.Format{}, func(spec *v1alpha1.TrustRootSpec) { spec.Notary.CABundle = "" }},
		signers.Sigstore: {sigstore.Format{}, noCA},
		signers.Notation: {&notation.Format{}, noCA},
		signers.SimpleSigning: {simplesigning.Format{}, func(spec *v1alpha1.TrustRootSpec) {
			spec.SimpleSigning.LookasideCABundle = ""
		}},
		signers.TUF: {tuf.Format{}, func(spec *v1alpha1.TrustRootSpec) { spec.TUF.CABundle = "" }},
	}
}

// signersOf returns a signer of each format, by its name in the tables.
func signersOf(t *testing.T, registry *distribution.Server) map[string]signers.Signer {
	t.Helper()
	all := map[string]signers.Signer{}
	for _, format := range signers.Formats() {
		all[format] = signerOf(t, registry, format)
	}
	return all
}

// signerOf returns a signer of a format.
func signerOf(t *testing.T, registry *distribution.Server, format string) signers.Signer {
	t.Helper()
	s, err := signers.Start(t.Context(), format, signers.Options{
		Registry: registry, Dir: t.TempDir(), Progress: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stopping the servers of %s: %v", format, err)
		}
	})
	return s
}

// pair is two formats, one for each role.
type pair struct{ ci, qa string }

func (p pair) String() string { return strings.ToLower(p.ci + "-" + p.qa) }

// matrix has an image of each kind for each pair of formats.
type matrix struct {
	signers map[string]signers.Signer
	pairs   []pair
	// images are those that both roles have signed, one of them, or none, by pair and tag.
	images map[pair]map[string]signers.Image
}

// The tags of the images, which say who has signed.
const (
	both   = "both"
	onlyCI = "only-ci"
	onlyQA = "only-qa"
	none   = "none"
)

// newMatrix pushes and signs the images. The formats sign side by side.
func newMatrix(t *testing.T) *matrix {
	t.Helper()
	registry := distribution.Run(t, distribution.Options{})
	m := &matrix{signers: signersOf(t, registry), images: map[pair]map[string]signers.Image{}}
	work := map[string][]func(context.Context) error{} // by format
	for _, ci := range slices.Sorted(maps.Keys(m.signers)) {
		for _, qa := range slices.Sorted(maps.Keys(m.signers)) {
			p := pair{ci, qa}
			m.pairs, m.images[p] = append(m.pairs, p), map[string]signers.Image{}
			for _, tag := range []string{both, onlyCI, onlyQA, none} {
				on, err := signers.Push(t.Context(), registry, "acme/"+p.String(), tag)
				if err != nil {
					t.Fatal(err)
				}
				m.images[p][tag] = on
				add := func(format, role string) {
					work[format] = append(work[format], func(ctx context.Context) error {
						return m.signers[format].Sign(ctx, role, on)
					})
				}
				if tag == both || tag == onlyCI {
					add(ci, "ci")
				}
				if tag == both || tag == onlyQA {
					add(qa, "qa")
				}
			}
		}
	}
	group, ctx := errgroup.WithContext(t.Context())
	for format, signatures := range work {
		group.Go(func() error {
			for _, sign := range signatures {
				if err := sign(ctx); err != nil {
					return fmt.Errorf("%s: %w", format, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return m
}

// put publishes the trust roots of some formats, and beside each one that reaches no server.
func (m *matrix) put(t *testing.T, g *gate.Gate) {
	t.Helper()
	for name, of := range formats() {
		spec, err := m.signers[name].Spec()
		if err != nil {
			t.Fatal(err)
		}
		down := *spec.DeepCopy()
		of.broken(&down)
		for name, spec := range map[string]v1alpha1.TrustRootSpec{name: spec, name + brokenSuffix: down} {
			root, err := of.format.Build(&v1alpha1.TrustRoot{
				ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
			}, trust.Material{})
			if err != nil {
				t.Fatal(err)
			}
			g.Put(name, root)
		}
	}
}

// brokenSuffix ends the names of trust roots that reach no server.
const brokenSuffix = "-broken"

// policies returns a policy for each pair, which requires signatures from the trust roots of both
// formats, and of others.
func (m *matrix) policies(required []v1alpha1.RoleRequirement, others ...string) map[string]*v1alpha1.ImagePolicySpec {
	all := map[string]*v1alpha1.ImagePolicySpec{}
	for _, p := range m.pairs {
		roots := append([]string{p.ci, p.qa}, others...)
		slices.Sort(roots)
		spec := &v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern("*/acme/" + p.String())},
			RequiredRoles: required,
		}
		for _, root := range slices.Compact(roots) {
			spec.TrustRoots = append(spec.TrustRoots, v1alpha1.ObjectName(root))
		}
		all[p.String()] = spec
	}
	return all
}

// decide compares the decisions about every image of a pair with who has signed it.
func (m *matrix) decide(t *testing.T, g *gate.Gate, p pair, unsigned gate.Verdict) (failed bool) {
	t.Helper()
	for _, tag := range []string{both, onlyCI, onlyQA, none} {
		on := m.images[p][tag]
		want, says := unsigned, []string{}
		switch tag {
		case both:
			want = gate.Admitted
		case onlyCI:
			says = []string{`role "qa"`, "needed of"}
		case onlyQA, none:
			says = []string{`role "ci"`, "needed of"}
		}
		for form, ref := range map[string]string{
			"tag":            on.Tagged(),
			"digest":         on.ByDigest(),
			"tag and digest": on.Tagged() + "@" + on.Digest,
		} {
			if err := g.Admit(t, ref).Is(want, on.Digest, says...); err != nil {
				failed = true
				t.Errorf("ci by %s, qa by %s, image %s by %s: %v", p.ci, p.qa, tag, form, err)
			}
		}
	}
	return failed
}

// table returns the results as a table: a row for each format of ci, a column for each of qa.
func (m *matrix) table(results map[pair]string) string {
	formats := slices.Sorted(maps.Keys(m.signers))
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s", "ci by, qa by")
	for _, qa := range formats {
		fmt.Fprintf(&b, " %-14s", qa)
	}
	for _, ci := range formats {
		fmt.Fprintf(&b, "\n%-16s", ci)
		for _, qa := range formats {
			fmt.Fprintf(&b, " %-14s", results[pair{ci, qa}])
		}
	}
	return b.String()
}

// start is the time of the gate: that of the signatures.
func start() time.Time { return time.Now() }

// TestMatrix requires ci and qa, in every pair of formats: what both have signed is admitted and
// pinned, by tag, by digest, and by both; what one of them has not signed is denied.
func TestMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	ci, qa := v1alpha1.RoleRequirement{Role: "ci"}, v1alpha1.RoleRequirement{Role: "qa"}
	for _, c := range []struct {
		name     string
		required []v1alpha1.RoleRequirement
	}{
		{"ci and qa", []v1alpha1.RoleRequirement{ci, qa}},
		{"two of ci and qa", []v1alpha1.RoleRequirement{{
			AnyOf: []v1alpha1.RoleName{"ci", "qa"}, Threshold: new(int32(2)),
		}}},
		{"ci, and one of qa and docs", []v1alpha1.RoleRequirement{ci, {AnyOf: []v1alpha1.RoleName{"qa", "docs"}}}},
	} {
		g := gate.New(t, start(), m.policies(c.required))
		m.put(t, g)
		results := map[pair]string{}
		for _, p := range m.pairs {
			results[p] = "as signed"
			if m.decide(t, g, p, gate.Denied) {
				results[p] = "WRONG"
			}
		}
		t.Logf("required: %s\n%s", c.name, m.table(results))
	}
	m.faults(t, []v1alpha1.RoleRequirement{ci, qa})
}

// faults adds a trust root of each format to every policy, which reaches no server. What the others
// prove is admitted. What they do not prove could not be checked: the trust root could have proven
// it.
func (m *matrix) faults(t *testing.T, required []v1alpha1.RoleRequirement) {
	t.Helper()
	for broken := range m.signers {
		g := gate.New(t, start(), m.policies(required, broken+brokenSuffix))
		m.put(t, g)
		for _, p := range m.pairs {
			if m.decide(t, g, p, gate.CouldNotCheck) {
				t.Errorf("with a trust root of %s that reaches no server", broken)
			}
		}
	}
}
