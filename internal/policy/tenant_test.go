package policy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// byTenant has the evidence of one trust root that pull secrets complement: of the tag "v1" and the
// digest "a" as its own credentials read them, of "shop v1" and "shop a" as the pull secrets of
// shop do. What is missing is not loaded.
type byTenant map[string]any

func (byTenant) Usable(root string) error { return roots{"acme-notary": trust.Unsigned{}}.Usable(root) }

func (byTenant) Subject(root string, image imageref.Ref) trust.Subject {
	return byDigest{}.Subject(root, image)
}

func (byTenant) Tenant(about trust.Key, namespace string) (trust.Key, bool) {
	about.Tenant = namespace
	return about, true
}

func (r byTenant) Evidence(about trust.Key) (trust.Evidence, time.Duration, error) {
	switch v := r[shortKey(about)].(type) {
	case trust.Evidence:
		return v, 0, nil
	case error:
		return nil, 0, v
	}
	return nil, 0, policy.ErrNotLoaded
}

// shortKey returns the key of a subject in byTenant.
func shortKey(k trust.Key) string {
	return strings.TrimSpace(k.Tenant + " " + k.Tag + strings.ReplaceAll(k.Digest, digest("a"), "a"))
}

func shortKeys(all []trust.Key) []string {
	var short []string
	for _, k := range all {
		short = append(short, shortKey(k))
	}
	slices.Sort(short)
	return short
}

// What a namespace's pull secrets read counts for that namespace alone. It is requested only if the
// registry refuses the credentials of the trust root.
func TestTenants(t *testing.T) {
	both := signed("ci - a", "qa - a")
	unauthorized := trust.NewFault(v1alpha1.ReasonUnauthorized, "access was refused")
	secretsRefused := trust.NewFault(v1alpha1.ReasonUnauthorized, "no pull secret could read it")
	ofShop := tagKey
	ofShop.Tenant = "shop"
	const tagged, named = app, "registry.example.com/acme/app@sha256:"
	for name, test := range map[string]struct {
		roots       byTenant
		image       string // by default the digest
		noNamespace bool
		failed      map[trust.Key]error
		verdict     policy.Verdict
		notLoaded   []string
		says        []string
	}{
		"nothing is loaded": {verdict: policy.CouldNotCheck, notLoaded: []string{"a"}},
		"the trust root reads it": {
			roots: byTenant{"a": both, "shop a": trust.Unsigned{}}, verdict: policy.Admitted,
		},
		"the trust root is refused": {
			roots: byTenant{"a": unauthorized}, verdict: policy.CouldNotCheck, notLoaded: []string{"shop a"},
		},
		"pull secrets read it": {roots: byTenant{"a": unauthorized, "shop a": both}, verdict: policy.Admitted},
		"pull secrets of another namespace read it": {
			roots: byTenant{"a": unauthorized, "lab a": both}, verdict: policy.CouldNotCheck,
			notLoaded: []string{"shop a"},
		},
		"pull secrets find no signature": {
			roots: byTenant{"a": unauthorized, "shop a": trust.Unsigned{}}, verdict: policy.Denied,
			says: []string{`no signatures for this digest (TrustRoot "acme-notary")`},
		},
		"both are refused": {
			roots: byTenant{"a": unauthorized, "shop a": secretsRefused}, verdict: policy.CouldNotCheck,
			says: []string{
				`could not check TrustRoot "acme-notary": access was refused; no pull secret could read it`,
			},
		},
		"the registry is down": {
			roots: byTenant{"a": unreachable}, verdict: policy.CouldNotCheck, says: []string{unreachable.Error()},
		},
		"a request without a namespace": {
			roots: byTenant{"a": unauthorized}, noNamespace: true, verdict: policy.CouldNotCheck,
			says: []string{unauthorized.Error()},
		},
		"the request for a newer answer is refused": {
			roots: byTenant{
				"v1": answered(time.Hour), "shop v1": answered(0), "a": unauthorized, "shop a": both,
			},
			image: tagged, failed: map[trust.Key]error{tagKey: unauthorized}, verdict: policy.Admitted,
		},
		"the request for a newer answer fails": {
			roots: byTenant{"v1": answered(25 * time.Hour), "a": both}, image: tagged,
			failed: map[trust.Key]error{tagKey: unreachable}, verdict: policy.CouldNotCheck, notLoaded: []string{"v1"},
		},
		"pull secrets have an answer that is too old": {
			roots: byTenant{"shop v1": answered(time.Hour), "a": both}, image: tagged, verdict: policy.CouldNotCheck,
			notLoaded: []string{"shop v1"},
		},
		"pull secrets that had an answer are refused": {
			roots: byTenant{"shop v1": answered(time.Hour), "a": both}, image: tagged,
			failed: map[trust.Key]error{ofShop: secretsRefused}, verdict: policy.CouldNotCheck,
			notLoaded: []string{"v1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			request := policy.Request{
				Image: named + strings.Repeat("a", 64), Namespace: "shop", Now: now, Arrived: now, Failed: test.failed,
			}
			if test.image != "" {
				request.Image = test.image
			}
			if test.noNamespace {
				request.Namespace = ""
			}
			set := policy.NewSet(policy.UncoveredDeny, []*policy.Policy{compiled(t, "production")})
			got := set.Decide(request, test.roots)
			if got.Verdict != test.verdict {
				t.Errorf("got verdict %d, want %d: %s", got.Verdict, test.verdict, got.Message)
			}
			if diff := cmp.Diff(test.notLoaded, shortKeys(got.NotLoaded)); diff != "" {
				t.Errorf("not loaded (-want +got):\n%s", diff)
			}
			for _, words := range test.says {
				if !strings.Contains(got.Message, words) {
					t.Errorf("got the message %q, want %q in it", got.Message, words)
				}
			}
			for _, words := range []string{"could not check", "no trust data"} {
				most := 0
				if words == "could not check" {
					most = 1
				}
				if n := strings.Count(got.Message, words); n > most {
					t.Errorf("got %q %d times in %q, want it at most %d times", words, n, got.Message, most)
				}
			}
		})
	}
}

// The evidence of what runs is kept as the trust root reads it, and if that was refused, as the
// pull secrets of the namespace do too.
func TestSubjectsOfWhatRuns(t *testing.T) {
	unauthorized := trust.NewFault(v1alpha1.ReasonUnauthorized, "access was refused")
	image := imageref.Ref{Host: "registry.example.com", Path: "acme/app", Digest: digest("a")}
	for name, test := range map[string]struct {
		roots     byTenant
		namespace string
		want      []string
	}{
		"nothing is loaded": {namespace: "shop", want: []string{"a"}},
		"the trust root reads it": {
			roots: byTenant{"a": trust.Unsigned{}}, namespace: "shop", want: []string{"a"},
		},
		"the trust root is refused": {
			roots: byTenant{"a": unauthorized}, namespace: "shop", want: []string{"a", "shop a"},
		},
		"pull secrets read it": {
			roots: byTenant{"a": unauthorized, "shop a": trust.Unsigned{}}, namespace: "shop",
			want: []string{"a", "shop a"},
		},
		"a request without a namespace": {roots: byTenant{"a": unauthorized}, want: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			set := policy.NewSet(policy.UncoveredDeny, []*policy.Policy{
				compiled(t, "production", from("acme-notary", "no-such-root")),
			})
			got := set.Subjects(image, policy.Request{Namespace: test.namespace, Now: now, Arrived: now}, test.roots)
			if diff := cmp.Diff(test.want, shortKeys(got)); diff != "" {
				t.Errorf("subjects (-want +got):\n%s", diff)
			}
		})
	}
}
