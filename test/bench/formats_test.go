package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
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
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/internal/trust/notation"
	"github.com/countersign-dev/countersign/internal/trust/sigstore"
	"github.com/countersign-dev/countersign/internal/trust/simplesigning"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
	"github.com/countersign-dev/countersign/webhooks"
)

// builders returns the Format of each name.
func builders() map[string]trust.Format {
	return map[string]trust.Format{
		signers.Notary: notary.Format{}, signers.Sigstore: sigstore.Format{}, signers.Notation: &notation.Format{},
		signers.SimpleSigning: simplesigning.Format{}, signers.TUF: tuf.Format{},
	}
}

// signed is one image in the distribution registry, which ci and qa have signed in one format.
// Proxies in front of the registry, and of the server of the format if it has one, delay and count
// requests.
type signed struct {
	proxies []*faultproxy.Proxy
	format  trust.Format
	spec    v1alpha1.TrustRootSpec
	image   signers.Image
}

// newSigned pushes and signs an image.
func newSigned(b *testing.B, format string) *signed {
	b.Helper()
	server := distribution.Run(b, distribution.Options{})
	front := faultproxy.Run(b, "https://"+server.Host, server.CA)
	host := strings.TrimPrefix(front.URL, "https://")
	s := &signed{proxies: []*faultproxy.Proxy{front}, format: builders()[format]}

	pushed, err := random.Image(256, 1)
	check(b, err)
	tag, err := name.NewTag(server.Host + "/acme/app:v1")
	check(b, err)
	check(b, remote.Write(tag, pushed, server.Options(b.Context())...))
	digest, err := pushed.Digest()
	check(b, err)
	size, err := pushed.Size()
	check(b, err)
	near := signers.Image{Repository: server.Host + "/acme/app", Tag: "v1", Digest: digest.String(), Size: size}
	s.image = near
	s.image.Repository = host + "/acme/app"

	signer, err := signers.Start(b.Context(), format, signers.Options{
		Registry: server, Dir: b.TempDir(), Progress: os.Stderr,
	})
	check(b, err)
	b.Cleanup(func() { check(b, signer.Stop()) })
	on := s.image
	if format == signers.Sigstore || format == signers.Notation {
		on = near // their clients push to the registry, which a proxy cannot be in front of
	}
	for _, role := range []string{signers.CI, signers.QA} {
		check(b, signer.Sign(b.Context(), role, on))
	}
	s.spec, err = signer.Spec()
	check(b, err)
	for i := range s.spec.Registries {
		s.spec.Registries[i] = v1alpha1.Registry{Host: host, CABundle: v1alpha1.RegistryCABundle(front.CA.PEM)}
	}
	s.behindProxy(b)
	return s
}

// behindProxy puts a proxy in front of the server of the format.
func (s *signed) behindProxy(b *testing.B) {
	b.Helper()
	front := func(server, ca string) (string, string) {
		at, err := url.Parse(server)
		check(b, err)
		proxy := faultproxy.Run(b, "https://"+at.Host, &tlstest.CA{PEM: []byte(ca)})
		s.proxies = append(s.proxies, proxy)
		return proxy.URL + at.Path, string(proxy.CA.PEM)
	}
	switch spec := &s.spec; {
	case spec.Notary != nil:
		server, ca := front(spec.Notary.Server, string(spec.Notary.CABundle))
		spec.Notary.Server, spec.Notary.CABundle = server, v1alpha1.PEMBundle(ca)
	case spec.TUF != nil:
		server, ca := front(spec.TUF.Server, string(spec.TUF.CABundle))
		spec.TUF.Server, spec.TUF.CABundle = server, v1alpha1.PEMBundle(ca)
	case spec.SimpleSigning != nil:
		server, ca := front(spec.SimpleSigning.Lookaside, string(spec.SimpleSigning.LookasideCABundle))
		spec.SimpleSigning.Lookaside = server
		spec.SimpleSigning.LookasideCABundle = v1alpha1.RegistryCABundle(ca)
	}
}

// delayed delays every further request and resets the count.
func (s *signed) delayed(by time.Duration) {
	for _, p := range s.proxies {
		p.Set()
		if by > 0 {
			p.Set(faultproxy.Fault{Delay: by})
		}
		p.Reset()
	}
}

// requests returns the number of requests since the last reset.
func (s *signed) requests() (n int) {
	for _, p := range s.proxies {
		n += len(p.Requests())
	}
	return n
}

// root returns a trust root that knows nothing and has no connection.
func (s *signed) root(b *testing.B) trust.Root {
	b.Helper()
	tr := &v1alpha1.TrustRoot{Spec: *s.spec.DeepCopy()}
	tr.Name = "acme-notary"
	root, err := s.format.Build(tr, trust.Material{})
	check(b, err)
	return root
}

// fresh returns the handlers of a manager that knows nothing and has no connection.
func (s *signed) fresh(b *testing.B) (*estate, *http.ServeMux) {
	b.Helper()
	e := emptyEstate(b, s.root(b), 0)
	e.policy(b, "production", "*/acme/**")
	mux := http.NewServeMux()
	e.gate().Register(mux.Handle)
	return e, mux
}

// BenchmarkFormat measures each format, with an image that two roles have signed with the real
// client, or with the library of its users: the first Pod of the tag, without and with a delay of
// 100 ms for each request; 500 Pods of the tag at the same time, 100 ms away; a decision once it is
// known; and the verification of what was fetched, for each of the two signatures.
func BenchmarkFormat(b *testing.B) {
	for _, format := range signers.Formats() {
		b.Run(format, func(b *testing.B) {
			s := newSigned(b, format)
			for b.Loop() {
				s.firstSight(b)
				s.herd(b)
				s.known(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func (s *signed) firstSight(b *testing.B) {
	b.Helper()
	took := map[time.Duration][]time.Duration{}
	body, most := review(b, s.image.Tagged(), 0), 0
	for range 5 {
		for _, by := range []time.Duration{0, latency} {
			_, gate := s.fresh(b)
			s.delayed(by)
			begin := time.Now()
			check(b, pins(gate, body))
			took[by] = append(took[by], time.Since(begin))
			most = max(most, s.requests())
		}
	}
	near, away := took[0], took[latency]
	b.ReportMetric(milliseconds(median(near)), "ms/0ms-away")
	b.ReportMetric(milliseconds(median(away)), "ms/100ms-away")
	b.ReportMetric(float64((slices.Min(away)-slices.Min(near)).Round(latency))/float64(latency), "round-trips")
	b.ReportMetric(float64(most), "requests")
}

func (s *signed) herd(b *testing.B) {
	b.Helper()
	var mutate, validate [][]byte
	for i := range herd {
		mutate = append(mutate, review(b, s.image.Tagged(), i))
		validate = append(validate, review(b, s.image.Tagged()+"@"+s.image.Digest, i))
	}
	_, gate := s.fresh(b)
	s.delayed(latency)
	each(b, herd, herd, func(_ context.Context, i int) error {
		return errors.Join(pins(gate, mutate[i]), admitted(gate, webhooks.ValidatePath, validate[i], false))
	})
	b.ReportMetric(float64(s.requests()), "requests/herd")
}

// known measures decisions and verifications without any request.
func (s *signed) known(b *testing.B) {
	b.Helper()
	e, gate := s.fresh(b)
	s.delayed(0)
	check(b, pins(gate, review(b, s.image.Tagged(), 0)))
	image := s.image.Tagged() + "@" + s.image.Digest
	check(b, admitted(gate, webhooks.ValidatePath, review(b, image, 0), false))
	const decisions = 2000
	begin := time.Now()
	for range decisions {
		check(b, e.decide(s.image.Tagged(), begin))
	}
	b.ReportMetric(float64(time.Since(begin).Microseconds())/decisions, "µs/decision")

	root := s.root(b)
	ref, err := imageref.Parse(image)
	check(b, err)
	about := root.Subject(ref)
	evidence, err := root.Fetch(b.Context(), about, nil)
	check(b, err)
	const checks = 100
	another := s.root(b)
	begin = time.Now()
	for range checks {
		again, err := another.Recheck(about, evidence)
		check(b, err)
		if len(again.Statements("", s.image.Digest)) != 2 {
			b.Fatal("got other statements than those of ci and qa")
		}
	}
	b.ReportMetric(float64(time.Since(begin).Microseconds())/checks/2, "µs/signature")
}

// BenchmarkTenThousandDigests holds the verified signatures of ci and qa on 10,000 digests.
//
// In the formats with signatures at a registry or lookaside, the signatures on one image are
// fetched 10,000 times, as under 10,000 names of its repository that a mirror has. Nothing is
// shared between them. In TUF they are one repository with 10,000 images, whose metadata all images
// share.
func BenchmarkTenThousandDigests(b *testing.B) {
	const n = 10_000
	for _, format := range []string{signers.Sigstore, signers.Notation, signers.SimpleSigning} {
		b.Run(format, func(b *testing.B) {
			s := newSigned(b, format)
			same := make([]signers.Image, n)
			for i := range same {
				same[i] = s.image
			}
			for b.Loop() {
				s.delayed(0) // the proxies hold the requests since
				b.ReportMetric(heldBy(b, s.root(b), same), "MiB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run(signers.TUF, func(b *testing.B) {
		root, images := tufImages(b, n)
		for b.Loop() {
			b.ReportMetric(heldBy(b, root(), images), "MiB")
		}
		b.ReportMetric(0, "ns/op")
	})
}

// heldBy returns the MiB of the evidence about each of some images.
func heldBy(b *testing.B, root trust.Root, images []signers.Image) float64 {
	b.Helper()
	held := make([]trust.Evidence, len(images))
	before := heap()
	each(b, len(images), 8, func(ctx context.Context, i int) error {
		ref, err := imageref.Parse(images[i].Tagged() + "@" + images[i].Digest)
		if err == nil {
			held[i], err = root.Fetch(ctx, root.Subject(ref), nil)
		}
		return err
	})
	used := float64(heap()-before) / (1 << 20)
	for i, e := range held {
		if len(e.Statements(images[i].Tag, images[i].Digest)) != 2 {
			b.Fatal("got other statements than those of ci and qa")
		}
	}
	return used
}

// tufImages signs n images in one TUF repository. Each call of root returns a trust root that knows
// nothing.
func tufImages(b *testing.B, n int) (root func() trust.Root, images []signers.Image) {
	b.Helper()
	server := tufserver.Run(b)
	r, err := server.Create("/metadata", time.Now().AddDate(0, 1, 0).UTC().Truncate(time.Second), true)
	check(b, err)
	for i := range n {
		images = append(images, signers.Image{
			Repository: "registry.example.com/acme/app", Tag: fmt.Sprintf("v%d", i), Size: 1234,
			Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Append(nil, i))),
		})
	}
	for _, role := range []string{signers.CI, signers.QA} {
		_, err := r.Delegate("targets", role, 1, "*/*/*")
		check(b, err)
		for _, on := range images {
			check(b, r.Sign(role, on.Tagged(), on.Digest, on.Size))
		}
	}
	check(b, r.Publish("targets", signers.CI, signers.QA))
	tr := &v1alpha1.TrustRoot{Spec: v1alpha1.TrustRootSpec{TUF: &v1alpha1.TUFSpec{
		Server: server.URL + "/metadata", CABundle: v1alpha1.PEMBundle(server.CA.PEM), Root: r.RootJSON(1),
	}}}
	return func() trust.Root {
		root, err := (tuf.Format{}).Build(tr, trust.Material{})
		check(b, err)
		return root
	}, images
}

// heap returns the bytes of live objects.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
