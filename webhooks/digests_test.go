package webhooks

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/digests"
)

const digestC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

// digestsBench returns a bench with the trust roots "acme" and "digests", and a policy that names
// some of them.
func digestsBench(t *testing.T, roots ...v1alpha1.ObjectName) (*bench, *digests.Registries) {
	t.Helper()
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.TrustRoots = roots }))
	r := &digests.Registries{Now: b.clock.Now}
	b.Store.PutRoot("digests", store.Root{Verifier: r})
	return b, r
}

func pod(image string) request { return request{kind: "Pod", object: object("Pod", image)} }

// wantFetched checks which subjects were fetched since the last call.
func wantFetched(t *testing.T, r *digests.Registries, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, r.Fetched()); diff != "" {
		t.Errorf("fetched subjects (-want +got):\n%s", diff)
	}
}

// In a format that signs digests, each digest and each tag of a repository is a subject.
func TestDigestsAreSubjects(t *testing.T) {
	b, r := digestsBench(t, "digests")
	r.Tag(repository, "v1", digestA)
	r.Tag(repository, "v2", digestB)
	r.Sign(digestA, "ci", "qa")
	r.Sign(digestB, "ci", "qa")

	stored, got := b.admit(t, pod(repository+":v1"))
	wantAdmitted(t, got)
	wantImage(t, stored, repository+":v1@"+digestA)
	wantFetched(t, r, repository+":v1", repository+"@"+digestA)

	stored, got = b.admit(t, pod(repository+":v2"))
	wantAdmitted(t, got)
	wantImage(t, stored, repository+":v2@"+digestB)
	wantFetched(t, r, repository+":v2", repository+"@"+digestB)

	// The digest of another tag, alone and with a tag of another digest: the tag is not compared.
	for _, image := range []string{repository + "@" + digestB, repository + ":v1@" + digestB} {
		_, got = b.admit(t, pod(image))
		wantAdmitted(t, got)
	}
	wantFetched(t, r)
	wantDenied(t, b.validate(t, pod(repository+"@"+digestC)), 403, `role "ci" has not signed sha256:cccccccc`)
}

// The digest that a registry returns for a tag is a hint: it decides which digest is checked, and
// proves nothing.
func TestThreatHintProvesNothing(t *testing.T) {
	b, r := digestsBench(t, "digests")
	r.Tag(repository, "v1", digestC)
	r.Sign(digestA, "ci", "qa")
	r.Sign(digestC, "ci")
	wantDenied(t, b.validate(t, pod(repository+":v1")), 403, `role "qa" has not signed sha256:cccccccc`, "signed by ci")
	r.Tag(repository, "v1", "sha256:short")
	r.Sign("sha256:short", "ci", "qa")
	b.clock.Step(time.Second)
	wantDenied(t, b.validate(t, pod(repository+":v1")), 403, `role "ci" has not signed it`)
	wantDenied(t, b.validate(t, pod(repository+":none")), 403, `role "ci" has not signed it`)
}

// A tag that moves counts as its old digest until it is resolved again. Before a denial it is
// resolved again.
func TestTagMoves(t *testing.T) {
	b, r := digestsBench(t, "digests")
	r.Tag(repository, "v1", digestA)
	r.Sign(digestA, "ci", "qa")
	stored, got := b.admit(t, pod(repository+":v1"))
	wantAdmitted(t, got)
	wantImage(t, stored, repository+":v1@"+digestA)
	wantFetched(t, r, repository+":v1", repository+"@"+digestA)

	r.Tag(repository, "v1", digestB)
	name := trust.Key{Root: "digests", Subject: trust.Subject{Repository: repository, Pulled: repository, Tag: "v1"}}
	b.clock.Step(time.Second)
	if err := b.Tracker.Renew(t.Context(), name, b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(time.Second)
	wantDenied(t, b.validate(t, pod(repository+":v1")), 403, `role "ci" has not signed sha256:bbbbbbbb`)

	r.Sign(digestB, "ci", "qa")
	b.clock.Step(time.Second)
	stored, got = b.admit(t, pod(repository+":v1"))
	wantAdmitted(t, got)
	wantImage(t, stored, repository+":v1@"+digestB)

	r.Sign(digestB) // the signatures are removed and the tag moves back: a denial resolves it again
	r.Tag(repository, "v1", digestA)
	digest := name
	digest.Subject = trust.Subject{Repository: repository, Pulled: repository, Digest: digestB}
	b.clock.Step(time.Second)
	if err := b.Tracker.Renew(t.Context(), digest, b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(time.Second)
	stored, got = b.admit(t, pod(repository+":v1"))
	wantAdmitted(t, got)
	wantImage(t, stored, repository+":v1@"+digestA)
}

// A denial resolves its tag again. The digest to which the tag has moved is then checked in the
// same request, whether or not it was seen before it was signed.
func TestThreatTagMovesToASignedDigest(t *testing.T) {
	for name, seen := range map[string]bool{"never seen": false, "seen before it was signed": true} {
		t.Run(name, func(t *testing.T) {
			b, r := digestsBench(t, "digests")
			r.Tag(repository, "v1", digestA)
			r.Sign(digestA, "ci")
			wantDenied(t, b.validate(t, pod(repository+":v1")), 403, `role "qa" has not signed sha256:aaaaaaaa`)
			if seen {
				wantDenied(t, b.validate(t, pod(repository+"@"+digestB)), 403, `has not signed sha256:bbbbbbbb`)
			}
			r.Tag(repository, "v1", digestB)
			r.Sign(digestB, "ci", "qa")
			b.clock.Step(time.Second)
			stored, got := b.admit(t, pod(repository+":v1"))
			wantAdmitted(t, got)
			wantImage(t, stored, repository+":v1@"+digestB)
		})
	}
}

// A trust root of a policy in mode Audit that hangs does not use up the time in which a denial is
// confirmed.
func TestThreatAuditDoesNotQuestionADenial(t *testing.T) {
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.TrustRoots = []v1alpha1.ObjectName{"digests"}
	}), requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeAudit }))
	r := &digests.Registries{Now: b.clock.Now}
	b.Store.PutRoot("digests", store.Root{Verifier: r})
	b.Deadline = 5 * time.Second
	r.Tag(repository, "v1", digestA)
	r.Sign(digestA, "ci")
	hangs := make(chan struct{})
	defer close(hangs)
	b.root.answer = func(context.Context, string) (trust.Evidence, error) {
		<-hangs
		return trust.Unsigned{}, nil
	}
	wantDenied(t, b.validate(t, pod(repository+":v1")), 403, `role "qa" has not signed sha256:aaaaaaaa`)
}

// One role is signed in each of two formats. The first names the digest of the tag, and the second
// is checked for that digest.
func TestOneRoleByEachFormat(t *testing.T) {
	for _, roots := range [][]v1alpha1.ObjectName{{"acme", "digests"}, {"digests", "acme"}} {
		b, r := digestsBench(t, roots...)
		r.Tag(repository, "ci-only", digestC) // the registry has another digest than ci signed
		r.Sign(digestB, "qa")
		stored, got := b.admit(t, pod(ciOnly))
		wantAdmitted(t, got)
		wantImage(t, stored, ciOnly+"@"+digestB)
	}
}

// load fetches images under the trust root "digests" without a deadline: a busy machine may need
// longer than a short one.
func load(t *testing.T, b *bench, r *digests.Registries, images ...string) {
	t.Helper()
	for _, image := range images {
		ref, err := imageref.Parse(image)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Tracker.Ensure(t.Context(), trust.Key{Root: "digests", Subject: r.Subject(ref)}); err != nil {
			t.Fatal(err)
		}
	}
}

// With one trust root down and nothing loaded from it, an image is admitted if another root proves
// every role. If the root could have proven a missing role, the answer is "could not check".
func TestOneRootDown(t *testing.T) {
	refused := trust.NewFault(v1alpha1.ReasonUnreachable, "connection refused")
	down := map[string]func(b *bench, r *digests.Registries){
		"fails": func(b *bench, _ *digests.Registries) { b.root.answers(nil, refused) },
		"hangs": func(b *bench, _ *digests.Registries) {
			b.Deadline = 100 * time.Millisecond
			b.root.answer = func(ctx context.Context, _ string) (trust.Evidence, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		},
	}
	for name, breaks := range down {
		for _, roots := range [][]v1alpha1.ObjectName{{"acme", "digests"}, {"digests", "acme"}} {
			t.Run(fmt.Sprintf("%s, %s first", name, roots[0]), func(t *testing.T) {
				b, r := digestsBench(t, roots...)
				breaks(b, r)
				r.Tag(repository, "v1", digestA)
				r.Tag(repository, "v2", digestB)
				r.Sign(digestA, "ci", "qa")
				r.Sign(digestB, "ci")
				if name == "hangs" {
					load(t, b, r, repository+":v1", repository+":v2", repository+"@"+digestA, repository+"@"+digestB)
				}
				stored, got := b.admit(t, pod(repository+":v1"))
				wantAdmitted(t, got)
				wantImage(t, stored, repository+":v1@"+digestA)
				wantDenied(t, b.validate(t, pod(repository+":v2")), 503, `role "qa" is not known to have signed`,
					`TrustRoot "acme"`)
			})
		}
	}
	t.Run("the registry", func(t *testing.T) {
		b, r := digestsBench(t, "digests", "acme")
		r.Fail("registry.example.com", refused)
		stored, got := b.admit(t, pod(signed))
		wantAdmitted(t, got)
		wantImage(t, stored, pinned)
		wantDenied(t, b.validate(t, pod(unsigned)), 503, `could not check TrustRoot "digests": connection refused`)
	})
}

// One trust root can have several hosts. A host that fails does not affect images of the others.
func TestThreatHostileHostBesideOthers(t *testing.T) {
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.Images, s.TrustRoots = append(s.Images, "evil.example.com/**"), []v1alpha1.ObjectName{"digests"}
	}))
	r := &digests.Registries{Now: b.clock.Now}
	b.Store.PutRoot("digests", store.Root{Verifier: r})
	r.Fail("evil.example.com", trust.NewFault(v1alpha1.ReasonUnreachable, "connection refused"))
	r.Tag(repository, "v1", digestA)
	r.Sign(digestA, "ci", "qa")
	for i := range 50 {
		wantDenied(t, b.validate(t, pod(fmt.Sprintf("evil.example.com/app-%d:v1", i))), 503, "connection refused")
	}
	_, got := b.admit(t, pod(repository+":v1"))
	wantAdmitted(t, got)
}
