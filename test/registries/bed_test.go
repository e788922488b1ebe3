package registries

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/testenv/tokenserver"
	"github.com/countersign-dev/countersign/test/digests"
	"github.com/countersign-dev/countersign/test/gate"
)

const (
	path               = "acme/app"
	username, password = "reader", "s3cret-passw0rd"
	// interval is the resolveInterval, and refresh the refreshInterval of the trust roots.
	interval = 10 * time.Second
	refresh  = 5 * time.Minute
	// nextTry is longer than each pause and backoff of the manager for a server that is down.
	nextTry = 31 * time.Second
	// hung is the timeout of requests to a registry that hangs.
	hung = time.Second
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// backend is a real registry with images and their signatures.
type backend struct {
	host    string
	ca      *tlstest.CA
	tokens  *tokenserver.Server
	storage map[string]registry.Config
	digests map[string]string // by tag
	options []remote.Option   // to push and pull
}

// newDistribution runs the reference registry: with tokens, a private CA, and a storage host of
// another CA. It lists referrers under a tag.
func newDistribution(t *testing.T) *backend {
	t.Helper()
	s := distribution.Run(t, distribution.Options{Username: username, Password: password, Token: true, Storage: true})
	b := &backend{
		host: s.Host, ca: s.CA, tokens: s.Tokens,
		storage: map[string]registry.Config{s.Storage: {CABundle: string(s.StorageCA.PEM)}},
	}
	b.push(t, s.Options(t.Context()))
	return b
}

// newReferrersAPI runs a registry with the referrers API.
func newReferrersAPI(t *testing.T) *backend {
	t.Helper()
	s := registryserver.Run(t)
	b := &backend{host: s.Host, ca: s.CA}
	b.push(t, s.Options(t.Context()))
	return b
}

// push pushes an index of two platforms for each tag. Both roles sign each but "half", which CI
// alone signs.
func (b *backend) push(t *testing.T, options []remote.Option) {
	t.Helper()
	b.digests, b.options = map[string]string{}, options
	for _, tag := range []string{"fresh", "stale", "digest", "half", "new", "new-digest"} {
		ref, err := name.NewTag(b.host + "/" + path + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		index, err := random.Index(64, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, index, options...); err != nil {
			t.Fatal(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		b.digests[tag] = digest.String()
		roles := []string{"ci", "qa"}
		if tag == "half" {
			roles = roles[:1]
		}
		for _, role := range roles {
			if err := digests.Sign(ref.Digest(digest.String()), role, options...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// settings returns the settings of the registry behind a proxy.
func (b *backend) settings(proxy *faultproxy.Proxy) map[string]registry.Config {
	cfg := registry.Config{CABundle: string(proxy.CA.PEM) + string(b.ca.PEM)}
	if b.tokens != nil {
		cfg.Username, cfg.Password, cfg.TokenServices = username, password, []string{b.tokens.Host}
	}
	all := map[string]registry.Config{host(proxy): cfg}
	for name, storage := range b.storage {
		all[name] = storage
	}
	return all
}

// host returns the host and port of a proxy.
func host(proxy *faultproxy.Proxy) string { return strings.TrimPrefix(proxy.URL, "https://") }

// newGate returns a gate whose policy requires ci and qa from the trust roots.
func newGate(t *testing.T, now time.Time, roots ...string) *gate.Gate {
	t.Helper()
	spec := &v1alpha1.ImagePolicySpec{
		Images:        []v1alpha1.ImagePattern{"*/acme/**"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
	}
	for _, root := range roots {
		spec.TrustRoots = append(spec.TrustRoots, v1alpha1.ObjectName(root))
	}
	return gate.New(t, now, map[string]*v1alpha1.ImagePolicySpec{"production": spec})
}

const (
	couldNotCheck = gate.CouldNotCheck
	admitted      = gate.Admitted
	warned        = gate.Warned
	denied        = gate.Denied
)

// is compares an outcome with a verdict. No text may contain the password.
func is(got gate.Outcome, want gate.Verdict, digest string, says ...string) error {
	if strings.Contains(got.Text, password) {
		return fmt.Errorf("got the password in %q", got.Text)
	}
	return got.Is(want, digest, says...)
}

// site is a gate whose trust root "registries" reads one registry through a proxy.
type site struct {
	*gate.Gate
	*backend
	proxy *faultproxy.Proxy
}

// newSite returns a gate over a registry, with a timeout of requests; 0: the default.
func newSite(t *testing.T, b *backend, timeout time.Duration) *site {
	t.Helper()
	s := &site{backend: b, proxy: faultproxy.Run(t, "https://"+b.host, b.ca)}
	s.Gate = newGate(t, start, "registries")
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: b.settings(s.proxy), Hosts: registry.NewHosts(s.HostsNow), Timeout: timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Put("registries", digests.NewRoot(images, interval, s.Clock.Now))
	return s
}

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// image returns the reference of a tag, or for a tag that contains "digest" of its digest.
func (s *site) image(tag string) string {
	if strings.Contains(tag, "digest") {
		return host(s.proxy) + "/" + path + "@" + s.digests[tag]
	}
	return host(s.proxy) + "/" + path + ":" + tag
}

// want checks the decision about an image.
func (s *site) want(t *testing.T, tag string, want gate.Verdict, says ...string) {
	t.Helper()
	if err := is(s.Admit(t, s.image(tag)), want, s.digests[tag], says...); err != nil {
		t.Errorf("%s: %v", tag, err)
	}
}

// await waits until the decision about an image is the wanted one. It moves the clock on before
// each further try.
func (s *site) await(t *testing.T, tag string, want gate.Verdict, step time.Duration) {
	t.Helper()
	poll.Await(t, "the decision about "+tag, func() error {
		err := is(s.Admit(t, s.image(tag)), want, s.digests[tag])
		if err != nil {
			s.Clock.Step(step)
		}
		return err
	})
}

// learn fetches what is known before a fault: the tag "stale" past its interval, and the tags
// "fresh" and "half" and the digest "digest" as of now.
func (s *site) learn(t *testing.T) {
	t.Helper()
	s.await(t, "stale", admitted, time.Second)
	s.Clock.Step(interval + time.Second)
	s.await(t, "digest", admitted, time.Second)
	s.await(t, "half", denied, time.Second)
	s.await(t, "fresh", admitted, time.Second)
}

// moveOn moves the clock on again and again, until stop is called or the test ends.
func (s *site) moveOn(t *testing.T, step time.Duration) (stop func()) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(poll.Interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				s.Clock.Step(step)
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		close(done)
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

// awaitStatus waits for the status of the trust root: with a fault of the reason, or without one
// where it is empty. It moves the clock on, so that the tracker refreshes.
func (s *site) awaitStatus(t *testing.T, reason string) {
	t.Helper()
	poll.Await(t, "the status", func() error {
		status := s.Tracker.Status("registries")
		fault := status.Server
		if fault == nil && status.Failing > 0 {
			fault = status.Faults[0].Fault
		}
		switch {
		case fault == nil && reason == "":
			return nil
		case fault == nil:
			s.Clock.Step(refresh)
			return errors.New("got no fault")
		case fault.Reason != reason:
			s.Clock.Step(nextTry)
			return fmt.Errorf("got %s (%w), want %q", fault.Reason, fault, reason)
		case !strings.Contains(fault.Error(), host(s.proxy)):
			return fmt.Errorf("got %w, want it to name the host", fault)
		}
		return nil
	})
}
