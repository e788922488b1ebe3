package formats

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/internal/trust/sigstore"
	"github.com/countersign-dev/countersign/test/gate"
)

// road is a repository whose tag latest moves from Docker Content Trust to cosign, under a load of
// creations.
type road struct {
	*testing.T

	gate     *gate.Gate
	registry *distribution.Server
	notary   *notaryserver.Server
	client   *notaryserver.Client
	cosign   signers.Signer
	builds   int
	// may are the digests to which the load may be pinned, each followed by a space.
	may            atomic.Pointer[string]
	right, refused atomic.Int64
}

const (
	roadRepository = "acme/road"
	pace           = 10 * time.Millisecond // between two creations of each of the load's four workers
)

func newRoad(t *testing.T) *road {
	r := &road{T: t, registry: distribution.Run(t, distribution.Options{})}
	r.notary = notaryserver.Run(t, notaryserver.Options{})
	r.client = notaryserver.RunClient(t, r.notary)
	r.cosign = signerOf(t, r.registry, signers.Sigstore)
	for _, repository := range []string{roadRepository, "acme/first"} {
		_, err := r.client.CreateRepository(t.Context(), r.registry.Host+"/"+repository, "ci", "qa")
		r.must(err)
	}
	r.gate = gate.New(t, start(), map[string]*v1alpha1.ImagePolicySpec{"road": r.policy(signers.Notary)})
	pin, err := r.client.Root(r.registry.Host + "/" + roadRepository)
	r.must(err)
	r.put(signers.Notary, v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
		Server: r.notary.URL, CABundle: v1alpha1.PEMBundle(r.notary.CA.PEM),
		Root: v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(pin.KeyID)}},
	}})
	spec, err := r.cosign.Spec()
	r.must(err)
	r.put(signers.Sigstore, spec)
	return r
}

func (r *road) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *road) put(format string, spec v1alpha1.TrustRootSpec) {
	tr := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: format}, Spec: spec}
	root, err := map[string]trust.Format{
		signers.Notary:   notary.Format{Clock: r.gate.Clock.Now},
		signers.Sigstore: sigstore.Format{Clock: r.gate.Clock.Now},
	}[format].Build(tr, trust.Material{})
	r.must(err)
	r.gate.Put(format, root)
}

func (*road) policy(roots ...v1alpha1.ObjectName) *v1alpha1.ImagePolicySpec {
	return &v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"*/acme/**"}, TrustRoots: roots,
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: signers.CI}, {Role: signers.QA}},
	}
}

// roots edits the policy.
func (r *road) roots(names ...v1alpha1.ObjectName) {
	compiled, err := policy.Compile("road", r.policy(names...))
	r.must(err)
	r.gate.Store.PutPolicy(compiled, fmt.Sprint(names))
}

// build pushes a new image to a repository under a tag of its own.
func (r *road) build(repository string) signers.Image {
	r.builds++
	on, err := signers.Push(r.Context(), r.registry, repository, fmt.Sprintf("build-%d", r.builds))
	r.must(err)
	on.Tag = "latest"
	return on
}

// sign signs an image as latest for the roles: in upper case with cosign, else with notary.
func (r *road) sign(on signers.Image, roles ...string) {
	var delegations []string
	for _, role := range roles {
		if lower := strings.ToLower(role); lower != role {
			r.must(r.cosign.Sign(r.Context(), lower, on))
		} else {
			delegations = append(delegations, "targets/"+role)
		}
	}
	if len(delegations) > 0 { // in one publication, so that no load sees one role's alone
		r.must(r.client.AddHash(r.Context(), on.Repository, "latest", on.Size, strings.TrimPrefix(on.Digest, "sha256:"),
			delegations...))
	}
}

// move moves the tag latest of the registry to an image.
func (r *road) move(to signers.Image) {
	from, err := name.NewDigest(to.ByDigest())
	r.must(err)
	found, err := remote.Get(from, r.registry.Options(r.Context())...)
	r.must(err)
	r.must(remote.Tag(from.Tag("latest"), found, r.registry.Options(r.Context())...))
}

// expect sets the digests to which the load may be pinned.
func (r *road) expect(images ...signers.Image) {
	var all strings.Builder
	for _, on := range images {
		all.WriteString(on.Digest + " ")
	}
	text := all.String()
	r.may.Store(&text)
}

// load creates Pods with the tag latest and with an unsigned image until the test ends, and fails
// the test for each wrong answer.
func (r *road) load(image, unsigned string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{}, 4)
	for i := range cap(ended) {
		go func() {
			defer func() { ended <- struct{}{} }()
			for {
				select {
				case <-done:
					return
				case <-time.After(pace):
				}
				if i%2 == 0 {
					r.once(image)
				} else if got := r.gate.Admit(r.T, unsigned); got.Code == 0 {
					r.Errorf("unsigned: got it admitted as %s, want a denial", got.Image)
				} else {
					r.refused.Add(1)
				}
			}
		}()
	}
	return func() {
		close(done)
		for range cap(ended) {
			<-ended
		}
	}
}

func (r *road) once(image string) {
	begin := *r.may.Load()
	got := r.gate.Admit(r.T, image)
	_, digest, pinned := strings.Cut(got.Image, "@")
	end := *r.may.Load()
	moving := strings.Count(begin, " ") > 1 || strings.Count(end, " ") > 1
	denied := strings.Contains(begin+end, "denied")
	between := strings.Contains(got.Text, "the tag is signed otherwise") ||
		strings.Contains(got.Text, "and not pinned to it; try again")
	if got.Code == http.StatusForbidden && denied || got.Code != 0 && moving && between {
		return // the tag moved after the Pod was to be pinned, and before it was validated
	}
	if may := begin + end; got.Code != 0 || !pinned || !strings.Contains(may, digest+" ") {
		r.Errorf("latest: got code %d, image %s, %s, want one of %s", got.Code, got.Image, got.Text, may)
		return
	}
	r.right.Add(1)
}

// pinned waits until latest is pinned to an image, while the clock brings refreshes.
func (r *road) pinned(what string, to signers.Image) {
	r.Helper()
	poll.Await(r.T, what, func() error {
		r.gate.Clock.Step(gate.Refresh / 8)
		return r.gate.Admit(r.T, to.Tagged()).Is(gate.Admitted, to.Digest)
	})
}

// release signs a new image as latest, moves the tag, and waits until it is pinned.
func (r *road) release(what string, before signers.Image, roles ...string) signers.Image {
	r.Helper()
	on := r.build(roadRepository)
	r.expect(before, on)
	r.sign(on, roles...)
	r.move(on)
	r.pinned(what, on)
	r.expect(on)
	return on
}

// stopServer stops the Notary server. It keeps its metadata.
func (r *road) stopServer() {
	r.notary.Disconnect()
	r.must(r.notary.Server().Pause())
}

func (r *road) startServer() {
	r.must(r.notary.Server().Resume())
	r.must(r.notary.Reconnect())
}

// TestRoadOffDockerContentTrust walks docs/migration.md. At each step the tag latest is pinned to
// the image that was just released, and an unsigned image is denied, for every creation of a load.
func TestRoadOffDockerContentTrust(t *testing.T) {
	t.Parallel()
	r := newRoad(t)
	unsigned, err := signers.Push(t.Context(), r.registry, roadRepository, "unsigned")
	r.must(err)
	one := r.build(roadRepository)
	r.sign(one, "ci", "qa")
	r.move(one)
	r.expect(one)
	r.pinned("the first release", one)
	stop := r.load(one.Tagged(), unsigned.Tagged())
	defer stop()

	two := r.release("both on DCT", one, "ci", "qa")
	r.roots(signers.Sigstore, signers.Notary)
	three := r.release("CI on cosign, QA on DCT", two, "CI", "qa")
	four := r.release("both on cosign", three, "CI", "QA")
	r.retire(unsigned, three, four)

	r.stopServer()
	five := r.release("both on cosign, without the Notary server", four, "CI", "QA")
	first := r.build("acme/first")
	r.sign(first, "CI", "QA")
	r.move(first)
	if err := r.gate.Admit(t, first.Tagged()).Is(gate.Admitted, first.Digest); err != nil {
		t.Errorf("a new repository without the Notary server: %v", err)
	}
	r.roots(signers.Sigstore)
	six := r.release("the DCT root removed", five, "CI", "QA")

	r.startServer()
	r.roots(signers.Sigstore, signers.Notary)
	seven := r.release("back: QA on DCT", six, "CI", "qa")
	eight := r.release("back: both on DCT", seven, "ci", "qa")
	r.roots(signers.Notary)
	r.pinned("the cosign root removed", eight)
	if r.right.Load() == 0 || r.refused.Load() == 0 {
		t.Errorf("got %d admissions and %d denials, want both", r.right.Load(), r.refused.Load())
	}
	t.Logf("%d admitted, %d denied", r.right.Load(), r.refused.Load())
}

// retire shows why the old signatures of latest are removed: if the registry's tag moves to an
// image that is not signed, they name the last release in which QA signed with Docker Content
// Trust.
func (r *road) retire(unsigned, old, current signers.Image) {
	r.Helper()
	r.expect(old, current, signers.Image{Digest: "denied"})
	r.move(unsigned)
	r.pinned("an unsigned latest, with the old signatures", signers.Image{
		Repository: old.Repository, Tag: "latest", Digest: old.Digest,
	})
	r.must(r.client.Remove(r.Context(), old.Repository, "latest", "targets/ci", "targets/qa"))
	poll.Await(r.T, "an unsigned latest, without the old signatures", func() error {
		r.gate.Clock.Step(gate.Refresh / 8)
		return r.gate.Admit(r.T, current.Tagged()).Is(gate.Denied, "", "has not signed")
	})
	r.move(current)
	r.pinned("the release again", current)
	r.expect(current)
}
