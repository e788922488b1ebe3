package tuf_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

const (
	targets = metadata.TARGETS
	folder  = "/metadata"
	app     = "registry.example.com/acme/app"
)

// digestOf returns a digest made of a text.
func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// bed is a TUF repository on a server, and the time.
type bed struct {
	*tufserver.Repository
	t      *testing.T
	server *tufserver.Server
	now    time.Time
}

func newBed(t *testing.T) *bed { return newBedIn(t, folder, true) }

func newBedIn(t *testing.T, folder string, consistent bool) *bed {
	t.Helper()
	b := &bed{t: t, server: tufserver.Run(t), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	var err error
	if b.Repository, err = b.server.Create(folder, b.now.AddDate(1, 0, 0), consistent); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// delegate adds a delegation with one key.
func (b *bed) delegate(from, name string, paths ...string) *metadata.DelegatedRole {
	b.t.Helper()
	role, err := b.Delegate(from, name, 1, paths...)
	b.must(err)
	return role
}

// sign lists a tag of an image repository in the files of roles.
func (b *bed) sign(repository, tag, digest string, roles ...string) {
	b.t.Helper()
	for _, role := range roles {
		b.must(b.Sign(role, repository+":"+tag, digest, 1))
	}
}

func (b *bed) publish(roles ...string) {
	b.t.Helper()
	b.must(b.Publish(roles...))
}

// trustRoot returns a TrustRoot that pins the first root.
func (b *bed) trustRoot() *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme"},
		Spec: v1alpha1.TrustRootSpec{TUF: &v1alpha1.TUFSpec{
			Server: b.server.URL + folder, CABundle: v1alpha1.PEMBundle(b.server.CA.PEM), Root: b.RootJSON(1),
		}},
	}
}

// root builds the trust root, after changes to it.
func (b *bed) root(change ...func(*v1alpha1.TrustRoot)) trust.Root {
	b.t.Helper()
	tr := b.trustRoot()
	for _, c := range change {
		c(tr)
	}
	r, err := tuf.Format{Clock: func() time.Time { return b.now }}.Build(tr, trust.Material{})
	b.must(err)
	return r
}

// role returns a change that adds a role.
func role(r v1alpha1.TUFRole) func(*v1alpha1.TrustRoot) {
	return func(tr *v1alpha1.TrustRoot) { tr.Spec.TUF.Roles = append(tr.Spec.TUF.Roles, r) }
}

func subject(t testing.TB, r trust.Root, image string) trust.Subject {
	t.Helper()
	ref, err := imageref.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return r.Subject(ref)
}

// fetch fetches the evidence about an image.
func (b *bed) fetch(r trust.Root, image string, held trust.Evidence) trust.Evidence {
	b.t.Helper()
	e, err := r.Fetch(b.t.Context(), subject(b.t, r, image), held)
	if err != nil {
		b.t.Fatalf("Fetch of %s: %v", image, err)
	}
	return e
}

// wantFault checks the reason and words of a fault.
func wantFault(t testing.TB, err error, reason string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want a fault %s", reason)
	}
	if f := trust.AsFault(err, "none"); f.Reason != reason {
		t.Errorf("got fault %s (%v), want %s", f.Reason, err, reason)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got message %q, want %q in it", err, word)
		}
	}
}

// wantRoles compares the roles that have signed a digest.
func wantRoles(t testing.TB, e trust.Evidence, tag, digest string, want ...string) {
	t.Helper()
	got := []string{}
	for _, st := range e.Statements(tag, digest) {
		got = append(got, st.Role)
		if digest != "" && st.Digest != digest || tag != "" && st.Tag != tag {
			t.Errorf("got a statement about %s@%s, want one about %s@%s", st.Tag, st.Digest, tag, digest)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s@%.20s: got it signed by %q, want %q; rejected: %+v", tag, digest, got, want,
			e.Rejected([]string{"ci", "qa", "security"}, tag, digest))
	}
}

// wantRejected checks that a file is rejected for a role, with words of the reason.
func wantRejected(t testing.TB, e trust.Evidence, role, tag, by string, words ...string) {
	t.Helper()
	all := e.Rejected([]string{role}, tag, "")
	i := slices.IndexFunc(all, func(r trust.Rejection) bool { return r.By == by })
	if i < 0 {
		t.Fatalf("got rejections %+v, want one of %s", all, by)
	}
	for _, word := range words {
		if !strings.Contains(all[i].Why, word) {
			t.Errorf("got %s rejected since it %q, want %q in it", by, all[i].Why, word)
		}
	}
}

// background returns a context of work that nobody waits for.
func background(t *testing.T) context.Context {
	return trust.WithPurpose(t.Context(), trust.Purpose{Known: true, Background: true})
}
