package formats

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore"
	"github.com/countersign-dev/countersign/test/gate"
)

// signerKind is a kind of signer that the real cosign knows.
type signerKind struct {
	name string
	new  func() (crypto.Signer, error)
	// managed keys are in a key management system.
	managed bool
	// certified signers have a certificate, and sign with a timestamp. Their identity counts.
	certified bool
	// recursive signers also sign an index with its children, which does not depend on the key.
	recursive bool
}

func onCurve(curve elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
}

func newRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

func newEd25519() (crypto.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

// signerKinds returns the rows of each layout.
func signerKinds() []signerKind {
	return []signerKind{
		{name: "ECDSA P-256", new: onCurve(elliptic.P256()), recursive: true},
		{name: "ECDSA P-384", new: onCurve(elliptic.P384())},
		{name: "ECDSA P-521", new: onCurve(elliptic.P521())},
		{name: "RSA-2048 PKCS1", new: newRSA},
		{name: "RSA-2048 PSS", new: newRSA, managed: true},
		{name: "Ed25519", new: newEd25519},
		{name: "identity", new: onCurve(elliptic.P256()), certified: true, recursive: true},
	}
}

// atOnce is how many commands run at once.
const atOnce = 4

// cosigner is what signs for one role.
type cosigner struct {
	reference string // of its key
	flags     []string
	role      v1alpha1.SigstoreRole
}

// sigstoreRow is a kind of signer in a layout. It has a repository of its own, with what both roles
// have signed, one of them, or none.
type sigstoreRow struct {
	layout    string
	kind      signerKind
	cosigners map[string]*cosigner     // by role
	images    map[string]signers.Image // by tag
	// children are the images of indexes, by the tag of the index.
	children map[string]signers.Image
}

// id is the name of the repository, the policy and the trust root.
func (r *sigstoreRow) id() string {
	return strings.ToLower(r.layout + "-" + strings.ReplaceAll(r.kind.name, " ", "-"))
}

// Indexes have the tags of images after indexPrefix. Those after recursivePrefix were signed with
// their children.
const (
	indexPrefix     = "index-"
	recursivePrefix = "recursive-"
)

// sigstoreMatrix has a row for each kind of signer and layout.
type sigstoreMatrix struct {
	registry *distribution.Server
	client   *cosign.Client
	instance *sigstoreinstance.Instance
	stamps   string // the URL of the timestamp authority
	rows     []*sigstoreRow
}

func newSigstoreMatrix(t *testing.T) *sigstoreMatrix {
	t.Helper()
	m := &sigstoreMatrix{registry: distribution.Run(t, distribution.Options{}), instance: sigstoreinstance.New(t)}
	m.client = cosign.NewClient(t, m.registry.CA)
	authority := httptest.NewServer(m.instance.TimestampAuthority(m.instance.Time.Add(time.Minute)))
	t.Cleanup(authority.Close)
	m.stamps = authority.URL
	for kind, cosigners := range m.newCosigners(t) {
		for _, layout := range cosign.Layouts() {
			r := &sigstoreRow{
				layout: layout, kind: signerKinds()[kind], cosigners: cosigners,
				images: map[string]signers.Image{}, children: map[string]signers.Image{},
			}
			for _, tag := range []string{both, onlyCI, onlyQA, none} {
				var err error
				if r.images[tag], err = signers.Push(t.Context(), m.registry, "acme/"+r.id(), tag); err != nil {
					t.Fatal(err)
				}
				m.pushIndex(t, r, indexPrefix+tag)
			}
			if r.kind.recursive {
				m.pushIndex(t, r, recursivePrefix+both)
			}
			m.rows = append(m.rows, r)
		}
	}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(atOnce)
	for _, r := range m.rows {
		group.Go(func() error { return m.sign(ctx, r) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return m
}

// newCosigners returns signers of both roles, for each kind.
func (m *sigstoreMatrix) newCosigners(t *testing.T) []map[string]*cosigner {
	t.Helper()
	var all []map[string]*cosigner
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(atOnce)
	for _, kind := range signerKinds() {
		of := map[string]*cosigner{}
		all = append(all, of)
		for _, role := range []string{"ci", "qa"} {
			private, err := kind.new()
			if err != nil {
				t.Fatal(err)
			}
			s := &cosigner{role: v1alpha1.SigstoreRole{Name: v1alpha1.RoleName(role)}}
			of[role] = s
			if kind.certified {
				m.certify(t, s, role, private.Public())
			}
			group.Go(func() error { return m.addKey(ctx, s, kind, role, private) })
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

// addKey gives cosign the key of a signer.
func (m *sigstoreMatrix) addKey(ctx context.Context, s *cosigner, kind signerKind, role string,
	private crypto.Signer) (err error) {
	s.reference = strings.ToLower(strings.ReplaceAll(kind.name, " ", "-")) + "-" + role
	var public string
	if kind.managed {
		s.reference, public, err = addPlugin(m.client, s.reference, private)
	} else {
		public, err = m.client.ImportKey(ctx, s.reference, private)
	}
	if !kind.certified {
		s.role.Keys = []v1alpha1.PEM{v1alpha1.PEM(public)}
	}
	return err
}

// certify gives a signer a certificate with the identity of its role.
func (m *sigstoreMatrix) certify(t *testing.T, s *cosigner, role string, public crypto.PublicKey) {
	t.Helper()
	identity := v1alpha1.SigstoreIdentity{Issuer: "https://token.example.com", Subject: map[string]string{
		"ci": "https://github.com/acme/app/.github/workflows/release.yaml@refs/heads/main", "qa": "qa@example.com",
	}[role]}
	s.role.Identities = []v1alpha1.SigstoreIdentity{identity}
	leaf := m.instance.Certify(public, sigstoreinstance.Certificate{Issuer: identity.Issuer, Subject: identity.Subject})
	file := filepath.Join(m.client.Dir, role+".crt")
	if err := os.WriteFile(file, []byte(sigstoreinstance.PEM(leaf)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.flags = []string{"--certificate", file, "--timestamp-server-url", m.stamps}
}

// pushIndex pushes an index of one image.
func (m *sigstoreMatrix) pushIndex(t *testing.T, r *sigstoreRow, tag string) {
	t.Helper()
	ref, err := name.NewTag(m.registry.Host + "/acme/" + r.id() + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	index, err := random.Index(64, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index, m.registry.Options(t.Context())...); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	r.images[tag] = signers.Image{Repository: ref.Repository.Name(), Tag: tag, Digest: digest.String()}
	r.children[tag] = signers.Image{Repository: ref.Repository.Name(), Digest: manifest.Manifests[0].Digest.String()}
}

// sign signs what the roles sign in a row. The roles sign one after the other: in both layouts, a
// client that adds a signature reads and replaces a list of signatures.
func (m *sigstoreMatrix) sign(ctx context.Context, r *sigstoreRow) error {
	for role, only := range map[string]string{"ci": onlyCI, "qa": onlyQA} {
		by := r.cosigners[role]
		var plain []string
		for _, tag := range []string{both, only, indexPrefix + both, indexPrefix + only} {
			plain = append(plain, r.images[tag].ByDigest())
		}
		if err := m.client.SignAll(ctx, plain, by.reference, r.layout, by.flags...); err != nil {
			return err
		}
		if !r.kind.recursive {
			continue
		}
		recursive := append([]string{"--recursive"}, by.flags...)
		on := r.images[recursivePrefix+both].ByDigest()
		if err := m.client.Sign(ctx, on, by.reference, r.layout, recursive...); err != nil {
			return err
		}
	}
	return nil
}

// gate returns a gate with a policy and a trust root for each row.
func (m *sigstoreMatrix) gate(t *testing.T) *gate.Gate {
	t.Helper()
	policies := map[string]*v1alpha1.ImagePolicySpec{}
	for _, r := range m.rows {
		policies[r.id()] = &v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern("*/acme/" + r.id())},
			TrustRoots:    []v1alpha1.ObjectName{v1alpha1.ObjectName(r.id())},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
		}
	}
	g := gate.New(t, start(), policies)
	source := v1alpha1.KeySource{Kind: "ConfigMap", Name: "trusted-root", Key: "trusted_root.json"}
	material := trust.Material{source: string(m.instance.TrustedRoot())}
	for _, r := range m.rows {
		spec := &v1alpha1.SigstoreSpec{Roles: []v1alpha1.SigstoreRole{r.cosigners["ci"].role, r.cosigners["qa"].role}}
		if r.kind.certified {
			spec.TrustedRoot = &v1alpha1.SigstoreTrustedRoot{From: &source}
		}
		root, err := sigstore.Format{}.Build(&v1alpha1.TrustRoot{
			ObjectMeta: metav1.ObjectMeta{Name: r.id()},
			Spec:       v1alpha1.TrustRootSpec{Sigstore: spec, Registries: m.registries()},
		}, material)
		if err != nil {
			t.Fatal(err)
		}
		g.Put(r.id(), root)
	}
	return g
}

// registries returns the settings with which a trust root reads the registry.
func (m *sigstoreMatrix) registries() []v1alpha1.Registry {
	return []v1alpha1.Registry{{Host: m.registry.Host, CABundle: v1alpha1.RegistryCABundle(m.registry.CA.PEM)}}
}

// sigstoreColumn is a way to name what was signed.
type sigstoreColumn struct {
	name string
	// prefix is that of the tags.
	prefix string
	ref    func(r *sigstoreRow, on signers.Image) (ref, digest string)
	// want is the verdict where both roles have signed.
	want gate.Verdict
}

// childOf names the image of an index by its digest.
func childOf(r *sigstoreRow, on signers.Image) (ref, digest string) {
	child := r.children[on.Tag]
	return child.ByDigest(), child.Digest
}

func sigstoreColumns() []sigstoreColumn {
	byTag := func(_ *sigstoreRow, on signers.Image) (ref, digest string) { return on.Tagged(), on.Digest }
	byDigest := func(_ *sigstoreRow, on signers.Image) (ref, digest string) { return on.ByDigest(), on.Digest }
	byBoth := func(_ *sigstoreRow, on signers.Image) (ref, digest string) {
		return on.Tagged() + "@" + on.Digest, on.Digest
	}
	return []sigstoreColumn{
		{name: "tag", ref: byTag, want: gate.Admitted},
		{name: "tag@digest", ref: byBoth, want: gate.Admitted},
		{name: "digest", ref: byDigest, want: gate.Admitted},
		{name: "index", prefix: indexPrefix, ref: byTag, want: gate.Admitted},
		{name: "child", prefix: indexPrefix, ref: childOf, want: gate.Denied},
		{name: "child, signed", prefix: recursivePrefix, ref: childOf, want: gate.Admitted},
	}
}

// decide compares the decisions about a cell with who has signed. It returns what the cell shows.
func (m *sigstoreMatrix) decide(t *testing.T, g *gate.Gate, r *sigstoreRow, c sigstoreColumn) string {
	t.Helper()
	if c.prefix == recursivePrefix && !r.kind.recursive {
		return "-"
	}
	shown := map[gate.Verdict]string{gate.Admitted: "admitted", gate.Denied: "denied"}[c.want]
	for tag, says := range map[string][]string{
		both: {`role "ci"`}, onlyCI: {`role "qa"`}, onlyQA: {`role "ci"`}, none: {`role "ci"`},
	} {
		want := gate.Denied
		if tag == both {
			want = c.want
		} else if c.prefix == recursivePrefix {
			continue
		}
		ref, digest := c.ref(r, r.images[c.prefix+tag])
		if err := g.Admit(t, ref).Is(want, digest, says...); err != nil {
			shown = "WRONG"
			t.Errorf("layout %s, %s, %s, signed by %s: %v", r.layout, r.kind.name, c.name, tag, err)
		}
	}
	return shown
}

// TestMatrixSigstore requires ci and qa. Each row has signers of one kind, which sign in one layout
// with the real cosign. What both have signed is admitted and pinned, in each form in which a Pod
// names it, and denied where one of them has not signed. An index does not sign its children: a
// child counts only where it is signed itself, as "cosign sign --recursive" does.
func TestMatrixSigstore(t *testing.T) {
	t.Parallel()
	m := newSigstoreMatrix(t)
	g := m.gate(t)
	var table strings.Builder
	fmt.Fprintf(&table, "%-7s %-15s", "layout", "ci and qa by")
	for _, c := range sigstoreColumns() {
		fmt.Fprintf(&table, " %-13s", c.name)
	}
	for _, layout := range cosign.Layouts() {
		for _, r := range m.rows {
			if r.layout != layout {
				continue
			}
			fmt.Fprintf(&table, "\n%-7s %-15s", r.layout, r.kind.name)
			for _, c := range sigstoreColumns() {
				fmt.Fprintf(&table, " %-13s", m.decide(t, g, r, c))
			}
		}
	}
	t.Logf("required: ci and qa; denied in every cell: what only ci, only qa or none has signed\n%s", table.String())
}
