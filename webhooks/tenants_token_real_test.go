package webhooks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/tokenserver"
)

// newTokenBench is a gate in front of a registry with a token service. Two namespaces have users
// with different rights: shop may read acme/app, and lab may read acme/other. The user of the
// operator may read neither.
func newTokenBench(t *testing.T) (b, other *tenantsBench) {
	t.Helper()
	b = newTenantsBenchOf(t, distribution.Options{
		Username: "publisher", Password: registryPassword, Token: true,
		Readers: []tokenserver.Reader{
			{Username: "shop-reader", Password: "password-of-shop", Repositories: []string{"acme/app"}},
			{Username: "lab-reader", Password: "password-of-lab", Repositories: []string{"acme/other"}},
			{Username: "operator", Password: "password-of-operator"},
		},
	})
	for _, namespace := range []string{"shop", "lab"} {
		b.plane.Make(t, b.secretOf(namespace, "pull", namespace+"-reader", "password-of-"+namespace))
	}
	copied := *b
	copied.repository = b.server.Host + "/acme/other"
	return b, &copied
}

// TestThreatTokenOfAnotherNamespace reads a registry with the tokens of two namespaces that have
// different rights at the token service. Each is admitted by what it may read itself, whatever the
// other one has read just before, and whyever the trust root is refused.
func TestThreatTokenOfAnotherNamespace(t *testing.T) {
	b, other := newTokenBench(t)
	digests := map[string]string{
		b.repository: b.push(t, "v1", "ci", "qa"), other.repository: other.push(t, "v1", "ci", "qa"),
	}
	mayRead := map[string]string{"shop": b.repository, "lab": other.repository}
	for name, root := range map[string]struct{ username, password, refusal string }{
		"the token service refuses the trust root": {
			"operator", "wrong", "the token service refused a token (status 401)",
		},
		"the trust root has no rights": {
			"operator", "password-of-operator", `access was refused (status 401) to user "operator"`,
		},
		"the trust root has no credentials": {"", "", "the token service refused a token (status 401)"},
	} {
		t.Run(name, func(t *testing.T) {
			b.restart(t)
			b.publish(t, root.username, root.password)
			for range 3 { // the second time, both have their tokens and their evidence
				for namespace, readable := range mayRead {
					for repository, digest := range digests {
						b.clock.Step(2 * time.Second)
						pod := podIn(namespace, specOf(repository+":v1", "", "pull"))
						if repository == readable {
							stored, got := b.admit(t, pod)
							wantAdmitted(t, got)
							wantImage(t, stored, repository+":v1@"+digest)
							continue
						}
						got := b.validate(t, pod)
						wantDenied(t, got, 503, root.refusal,
							fmt.Sprintf("no pull secret of namespace %q could read it", namespace),
							`access was refused (status 401) with Secret "pull"`)
						for _, secret := range []string{"password-of-", "-reader", digest[7:20]} {
							if strings.Contains(got.Result.Message, secret) {
								t.Errorf("got %q in the message %q", secret, got.Result.Message)
							}
						}
					}
				}
			}
		})
	}
}
