package registries

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/test/digests"
)

// ofRole verifies the signatures of one role.
type ofRole struct {
	bydigest.Verifier
	role string
}

// Fetch implements bydigest.Verifier.
func (v ofRole) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	found, err := v.Verifier.Fetch(ctx, about, held)
	if signed, ok := found.(*digests.Evidence); ok && err == nil {
		roles := slices.DeleteFunc(slices.Clone(signed.Roles), func(role string) bool { return role != v.role })
		return &digests.Evidence{Digest: signed.Digest, Roles: roles}, nil
	}
	return found, err
}

// records are the records of a trust root, by repository.
type records map[trust.Subject][]byte

// estate is two registries, each behind a proxy. One role is proven under each of two trust roots.
type estate struct {
	sites []*site // the backend and the proxy of each
	roots map[string]string
}

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{roots: map[string]string{"acme-ci": "ci", "acme-qa": "qa"}}
	for _, b := range []*backend{newDistribution(t), newReferrersAPI(t)} {
		e.sites = append(e.sites, &site{backend: b, proxy: faultproxy.Run(t, "https://"+b.host, b.ca)})
	}
	return e
}

// start stops the manager, and starts another. It reads the records of each trust root.
func (e *estate) start(t *testing.T, now time.Time, saved map[string]records) map[string]*bydigest.Root {
	t.Helper()
	if running := e.sites[0].Gate; running != nil {
		running.Stop()
	}
	g := newGate(t, now, "acme-ci", "acme-qa")
	registries := map[string]registry.Config{}
	for _, s := range e.sites {
		s.Gate = g
		for host, cfg := range s.settings(s.proxy) {
			registries[host] = cfg
		}
	}
	built := map[string]*bydigest.Root{}
	for root, role := range e.roots {
		images, err := registry.NewImages(registry.ImagesConfig{
			Registries: registries, Hosts: registry.NewHosts(g.HostsNow),
		})
		if err != nil {
			t.Fatal(err)
		}
		verifier := digests.NewRoot(images, interval, g.Clock.Now)
		verifier.Verifier = ofRole{verifier.Verifier, role}
		built[root] = verifier
		read := func(take func(trust.Subject, []byte)) error {
			for repository, packed := range saved[root] {
				take(repository, packed)
			}
			return nil
		}
		faults, err := g.Store.PutRootWith(root, store.Root{Verifier: verifier}, read, func() bool { return false })
		if err != nil || len(faults) > 0 {
			t.Fatalf("got the faults %v and %v from the records of %s", faults, err, root)
		}
		g.Tracker.Reset(root, refresh)
	}
	return built
}

// write returns the records that the leader writes.
func (e *estate) write(t *testing.T, roots map[string]*bydigest.Root) map[string]records {
	t.Helper()
	all, snapshot := map[string]records{}, e.sites[0].Store.Load()
	for _, repository := range snapshot.Repositories() {
		packed, err := roots[repository.Root].Pack(snapshot.Verified(repository))
		if err != nil {
			t.Fatal(err)
		}
		if packed == nil {
			t.Fatalf("got no record of %s", repository.Subject)
		}
		if all[repository.Root] == nil {
			all[repository.Root] = records{}
		}
		all[repository.Root][repository.Subject] = packed
	}
	if len(all) != len(roots) {
		t.Fatalf("got records of %d trust roots, want %d", len(all), len(roots))
	}
	return all
}

// platform returns the digest of a platform's image in the index of a tag.
func (b *backend) platform(t *testing.T, tag string) string {
	t.Helper()
	ref, err := name.NewDigest(b.host + "/" + path + "@" + b.digests[tag])
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref, b.options...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Manifests[0].Digest.String()
}

// TestRestartWithEveryRegistryDown stops and starts the manager while no registry answers. It
// decides from the records as it did before: on an index, with each role under a trust root of its
// own.
func TestRestartWithEveryRegistryDown(t *testing.T) {
	t.Parallel()
	e := newEstate(t)
	roots := e.start(t, start, nil)
	for _, s := range e.sites {
		s.digests["platform-digest"] = s.platform(t, "new")
		s.want(t, "new", admitted)
		s.want(t, "digest", admitted)
		s.want(t, "half", denied, `role "qa" has not signed`)
		s.want(t, "platform-digest", denied, "has not signed") // of an index, the index itself is signed
	}
	saved := e.write(t, roots)
	for _, s := range e.sites {
		s.proxy.Disconnect()
	}

	down := []string{"the connection was refused"}
	e.start(t, start.Add(time.Hour), saved)
	for _, s := range e.sites {
		s.want(t, "digest", admitted)
		s.want(t, "new", warned)
		s.want(t, "half", couldNotCheck, down...)
		s.want(t, "platform-digest", couldNotCheck, down...)
		s.want(t, "fresh", couldNotCheck, down...) // nobody requested it before
	}
	t.Run("without the records of one trust root", func(t *testing.T) {
		e.start(t, start.Add(time.Hour), map[string]records{"acme-ci": saved["acme-ci"]})
		for _, s := range e.sites {
			s.want(t, "new", couldNotCheck, down...)
			s.want(t, "digest", couldNotCheck, down...)
		}
	})
	t.Run("a day later", func(t *testing.T) {
		e.start(t, start.Add(25*time.Hour), saved)
		for _, s := range e.sites {
			s.want(t, "digest", admitted)
			s.want(t, "new", couldNotCheck, down...) // the answer about the tag is too old
		}
		for _, s := range e.sites {
			if err := s.proxy.Reconnect(); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range e.sites {
			s.await(t, "new", admitted, nextTry)
			s.await(t, "fresh", admitted, nextTry)
			s.await(t, "half", denied, nextTry)
			s.await(t, "platform-digest", denied, nextTry)
		}
	})
}
