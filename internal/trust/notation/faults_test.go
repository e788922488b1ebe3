package notation

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A fault of the registry is never a verdict: what is not read could not be checked, and what was
// verified before stays.
func TestThreatNotationRegistryFaults(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ca := issue(t, nil, "ca", asCA)
	ci, qa := issue(t, ca, "ci"), issue(t, ca, "qa")
	proxy := faultproxy.Run(t, "https://"+b.Host, b.CA)
	host := strings.TrimPrefix(proxy.URL, "https://")
	tr := b.trustRoot(caRole("ci", 1, []*certificate{ca}, "CN=ci"), caRole("qa", 1, []*certificate{ca}, "CN=qa"))
	tr.Spec.Registries = []v1alpha1.Registry{{Host: host, CABundle: v1alpha1.RegistryCABundle(proxy.CA.PEM)}}
	through := func(on image) image {
		repository, err := name.NewRepository(host + "/" + on.Context().RepositoryStr())
		if err != nil {
			t.Fatal(err)
		}
		return image{repository.Digest(on.DigestStr())}
	}
	missing := `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`
	faults := map[string]faultproxy.Fault{
		"401": {Status: http.StatusUnauthorized}, "403": {Status: http.StatusForbidden},
		"429": {Status: http.StatusTooManyRequests}, "500": {Status: http.StatusInternalServerError},
		"a web page": {Status: http.StatusOK, Body: "<html>log in</html>"}, "nothing": {Status: http.StatusOK},
		"no answer": {Hang: true}, "cut off": {Cut: 10}, "truncated": {Truncate: 10}, "changed": {Corrupt: true},
	}
	parts := map[string]string{"list": "/referrers/", "manifest": "/manifests/", "envelope": "/blobs/"}
	for where, part := range parts {
		for what, fault := range faults {
			if where == "list" && what == "changed" {
				continue // the list is not signed, so that it may be another one
			}
			on := b.push()
			b.sign(on, ci)
			proxied := through(on)
			fault.Match = func(path string) bool { return strings.Contains(path, part) }
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if fault.Hang {
				ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
			}
			root := b.build(tr) // with pauses of its own
			if where == "manifest" && what == "nothing" {
				fault.Body = missing
				fault.Status = http.StatusNotFound
			}
			proxy.Set(fault)
			e, err := root.Fetch(ctx, about(t, root, proxied), nil)
			cancel()
			if err == nil {
				t.Errorf("%s, %s: got %q and no fault, want that it could not be checked", where, what, b.roles(e))
			}
			proxy.Set()
			root = b.build(tr)
			held, err := b.fetch(root, proxied, nil)
			if err != nil || b.roles(held) != "ci" {
				t.Fatalf("%s, %s: without the fault: got %q and %v", where, what, b.roles(held), err)
			}
			b.sign(on, qa)
			if fault.Hang {
				continue // as above
			}
			proxy.Set(fault)
			e, err = b.fetch(root, proxied, held)
			switch {
			case err == nil && (b.roles(e) != "ci" || len(e.Faults()) != 1):
				t.Errorf(
					"%s, %s, later: got %q and faults %v, want ci still, and a fault",
					where,
					what,
					b.roles(e),
					e.Faults(),
				)
			case err != nil && where != "list":
				t.Errorf("%s, %s, later: got %v, want the evidence with a fault", where, what, err)
			case err != nil && trust.AsFault(err, "").Ends:
				t.Errorf("%s, %s, later: got a fault that ends what is held", where, what)
			}
			proxy.Set()
		}
	}
}
