package metricsauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

const (
	authenticated = "tokenreviews"
	both          = "tokenreviews subjectaccessreviews"
)

func TestFilter(t *testing.T) {
	b := newBed(t)
	_, right := b.account(t, "prometheus", "scrape")
	_, other := b.account(t, "nobody", "")
	_, elsewhere := b.account(t, "vault", "scrape", "vault")
	expired, lasting := b.until(t, right, time.Now().Add(-time.Hour)), b.until(t, right, time.Now().Add(time.Hour))
	e := serve(t, b.kube.Config)
	poll.Await(t, "the rights", func() error {
		if code := e.get(t, right); code != http.StatusOK {
			return fmt.Errorf("status %d", code)
		}
		return nil
	})
	e.asked()
	for name, c := range map[string]struct {
		header       http.Header
		method, path string // GET /metrics, unless said
		code         int
		asked        string
	}{
		"of who may get them":    {header: bearing(right), code: http.StatusOK, asked: both},
		"the scheme in small":    {header: authorization("bearer " + right), code: http.StatusOK, asked: both},
		"more blanks":            {header: authorization("Bearer   " + right), code: http.StatusOK, asked: both},
		"of a member of a group": {header: bearing(groupToken), code: http.StatusOK, asked: both},
		"signed anew":            {header: bearing(lasting), code: http.StatusOK, asked: both},
		"expired":                {header: bearing(expired), code: http.StatusUnauthorized, asked: authenticated},
		"of another audience":    {header: bearing(elsewhere), code: http.StatusUnauthorized, asked: authenticated},
		"made up":                {header: bearing("made-up"), code: http.StatusUnauthorized, asked: authenticated},
		"as long as may be": {
			header: bearing(strings.Repeat("x", maxToken)), code: http.StatusUnauthorized, asked: authenticated,
		},
		"of the anonymous": {
			header: bearing(anonymousToken), code: http.StatusUnauthorized, asked: authenticated,
		},
		"of somebody without any": {
			header: bearing(unknownToken), code: http.StatusUnauthorized, asked: authenticated,
		},
		"of who may not": {header: bearing(other), code: http.StatusForbidden, asked: both},
		"another method": {
			header: bearing(right), method: http.MethodPost, code: http.StatusForbidden, asked: both,
		},
		"another path":      {header: bearing(right), path: "/debug", code: http.StatusForbidden, asked: both},
		"none":              {code: http.StatusUnauthorized},
		"an empty one":      {header: bearing(""), code: http.StatusUnauthorized},
		"without a scheme":  {header: authorization(right), code: http.StatusUnauthorized},
		"another scheme":    {header: authorization("Basic " + right), code: http.StatusUnauthorized},
		"two in one header": {header: bearing(right + " " + right), code: http.StatusUnauthorized},
		"two headers": {
			header: authorization("Bearer "+right, "Bearer "+right), code: http.StatusUnauthorized,
		},
		"a tab before it": {header: bearing("\t" + right), code: http.StatusUnauthorized},
		"too long":        {header: bearing(strings.Repeat("x", maxToken+1)), code: http.StatusUnauthorized},
		"in the query": {
			path: "/metrics?access_token=" + right + "&token=" + right, code: http.StatusUnauthorized,
		},
		"as protocol of a websocket": {
			header: http.Header{"Sec-Websocket-Protocol": {"base64url.bearer.authorization.k8s.io." + right}},
			code:   http.StatusUnauthorized,
		},
	} {
		t.Run(name, func(t *testing.T) {
			method, path := c.method, c.path
			if method == "" {
				method = http.MethodGet
			}
			if path == "" {
				path = "/metrics"
			}
			req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, nil)
			must(t, err)
			req.Header = c.header
			resp, err := http.DefaultClient.Do(req)
			must(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			must(t, err)
			if asked := e.asked(); resp.StatusCode != c.code || asked != c.asked {
				t.Errorf("status %d and asked for %q, want %d and %q: %s", resp.StatusCode, asked, c.code,
					c.asked, body)
			}
			if (string(body) == served) != (c.code == http.StatusOK) {
				t.Errorf("the body is %q", body)
			}
			if challenge := resp.Header.Get(
				"WWW-Authenticate"); (challenge == "Bearer") != (c.code == http.StatusUnauthorized) {
				t.Errorf("the challenge is %q", challenge)
			}
		})
	}
	if lines := e.logged(); len(lines) > 0 {
		t.Errorf("the log is %q, want no line: verdicts are no faults", lines)
	}
	t.Run("reviews", func(t *testing.T) { b.testAsked(t) })
	t.Run("revoked", func(t *testing.T) { b.testTakenAway(t) })
	t.Run("faults", func(t *testing.T) { b.testFaults(t, right) })
	t.Run("without rights of our own", func(t *testing.T) { b.testOwnRights(t, right) })
	t.Run("contradictory responses", func(t *testing.T) { b.testContradictions(t, right) })
	t.Run("cancelled", func(t *testing.T) { b.testNobodyWaits(t, right) })
	t.Run("a flood", func(t *testing.T) { b.testFlood(t, right) })
}

func authorization(values ...string) http.Header { return http.Header{"Authorization": values} }

func bearing(token string) http.Header { return authorization("Bearer " + token) }

// testAsked tests that the SubjectAccessReview has all attributes of the user: an authorizer may
// depend on any of them.
func (b *bed) testAsked(t *testing.T) {
	account, token := b.account(t, "whole", "")
	e := serve(t, b.kube.Config)
	var tokens authenticationv1.TokenReview
	e.meanwhile = func(*http.Request) {
		if tokens.Spec.Token == "" {
			must(t, json.Unmarshal(e.last, &tokens))
		}
	}
	e.get(t, token)
	if tokens.Spec.Token != token || tokens.Spec.Audiences != nil {
		t.Errorf("the TokenReview was about %+v", tokens.Spec)
	}
	var rights authorizationv1.SubjectAccessReview
	must(t, json.Unmarshal(e.last, &rights))
	got := rights.Spec
	if got.User != "system:serviceaccount:default:whole" || got.UID != string(account.UID) ||
		!slices.Contains(got.Groups, "system:serviceaccounts:default") ||
		!slices.Contains(got.Groups, "system:authenticated") ||
		len(got.Extra["authentication.kubernetes.io/credential-id"]) != 1 {
		t.Errorf("the SubjectAccessReview was about %+v", got)
	}
	if got.ResourceAttributes != nil || got.NonResourceAttributes == nil ||
		*got.NonResourceAttributes != (authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"}) {
		t.Errorf("the SubjectAccessReview was about %v", got.NonResourceAttributes)
	}
}

// testTakenAway tests that a revoked right, and a deleted account, stop counting at once.
func (b *bed) testTakenAway(t *testing.T) {
	account, token := b.account(t, "leaver", "scrape")
	e := serve(t, b.kube.Config)
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:                  "system:serviceaccount:default:leaver",
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"},
	}}
	allowed := func(want bool) func() error {
		return func() error {
			r := review.DeepCopy()
			must(t, b.Create(t.Context(), r))
			if r.Status.Allowed != want {
				return errors.New("its rights are as they were")
			}
			return nil
		}
	}
	binding := &rbacv1.ClusterRoleBinding{}
	binding.Name = "leaver"
	poll.Await(t, "the right", allowed(true))
	if code := e.get(t, token); code != http.StatusOK {
		t.Errorf("before: status %d", code)
	}
	must(t, b.Delete(t.Context(), binding))
	poll.Await(t, "the right to be gone", allowed(false))
	if code := e.get(t, token); code != http.StatusForbidden {
		t.Errorf("without its right: status %d", code)
	}
	must(t, b.Delete(t.Context(), account))
	poll.Await(t, "the account to be gone", func() error {
		r := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
		must(t, b.Create(t.Context(), r))
		if r.Status.Authenticated {
			return errors.New("its token counts")
		}
		return nil
	})
	if code := e.get(t, token); code != http.StatusUnauthorized {
		t.Errorf("without its account: status %d", code)
	}
}

// testFaults tests an API server that is down, and one that does not answer.
func (b *bed) testFaults(t *testing.T, right string) {
	t.Run("gone", func(t *testing.T) {
		port, err := process.FreePort()
		must(t, err)
		config := rest.CopyConfig(b.kube.Config)
		config.Host = fmt.Sprintf("https://127.0.0.1:%d", port)
		e, begin := serve(t, config), time.Now()
		for range 5 {
			if code := e.get(t, right); code != http.StatusServiceUnavailable {
				t.Errorf("status %d", code)
			}
		}
		lines := e.logged()
		if most := 1 + int(time.Since(begin)/faultInterval); len(lines) == 0 || len(lines) > most {
			t.Errorf("%d lines in the log, want one, and %d at most: %q", len(lines), most, lines)
		}
		if text := fmt.Sprint(lines); !strings.Contains(text, "connection refused") || strings.Contains(text, right) {
			t.Errorf("the log is %s", text)
		}
	})
	t.Run("silent", func(t *testing.T) {
		link := kubeserver.RunLink(t, b.kube)
		config := rest.CopyConfig(b.kube.Config)
		config.Host = link.URL
		e := serve(t, config)
		if code := e.get(t, right); code != http.StatusOK {
			t.Errorf("before: status %d", code)
		}
		link.Cut()
		if code := e.get(t, right); code != http.StatusServiceUnavailable { // or what asks gives up, after a minute
			t.Errorf("status %d", code)
		}
		// The transport would time out later, with another error.
		if lines := e.logged(); len(lines) != 1 || !strings.Contains(lines[0], "context deadline exceeded") ||
			strings.Contains(lines[0], right) {
			t.Errorf("the log is %q, want one line about a timeout", lines)
		}
		link.Mend()
		poll.Await(t, "the next review", func() error {
			if code := e.get(t, right); code != http.StatusOK {
				return fmt.Errorf("status %d", code)
			}
			return nil
		})
	})
}

// testOwnRights revokes our right to create reviews.
func (b *bed) testOwnRights(t *testing.T, right string) {
	_, own := b.account(t, "manager", "")
	config := rest.AnonymousClientConfig(b.kube.Config)
	config.BearerToken = own
	e := serve(t, config)
	if code, asked := e.get(t, right), e.asked(); code != http.StatusServiceUnavailable || asked != authenticated {
		t.Errorf("without the right to review tokens: status %d, asked for %q", code, asked)
	}
	b.allow(t, "review-tokens",
		rbacv1.PolicyRule{
			Verbs: []string{"create"}, APIGroups: []string{"authentication.k8s.io"},
			Resources: []string{"tokenreviews"},
		}, subject("manager"))
	poll.Await(t, "the right to review tokens", func() error {
		code, asked := e.get(t, right), e.asked()
		if code != http.StatusServiceUnavailable {
			t.Fatalf("without the right to review rights: status %d", code)
		}
		if asked != both {
			return fmt.Errorf("asked for %q", asked)
		}
		return nil
	})
}

// testContradictions tests that a contradictory response does not authorize a request.
func (b *bed) testContradictions(t *testing.T, right string) {
	for name, c := range map[string]struct {
		find, put string
		code      int
	}{
		"allowed and denied":      {`"allowed":true`, `"allowed":true,"denied":true`, http.StatusForbidden},
		"a user, unauthenticated": {`"authenticated":true`, `"authenticated":false`, http.StatusUnauthorized},
		"authenticated, and nobody": {
			`"username":"system:serviceaccount:default:prometheus"`, `"username":""`, http.StatusUnauthorized,
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, changed := serve(t, b.kube.Config), 0
			e.answer = func(text []byte) []byte {
				changed += strings.Count(string(text), c.find)
				return []byte(strings.ReplaceAll(string(text), c.find, c.put))
			}
			if code := e.get(t, right); code != c.code || changed == 0 {
				t.Errorf("status %d, want %d; %d changes", code, c.code, changed)
			}
		})
	}
}

// testNobodyWaits tests that a review ends with its request, without a log line.
func (b *bed) testNobodyWaits(t *testing.T, right string) {
	e := serve(t, b.kube.Config)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ended error
	e.meanwhile = func(req *http.Request) {
		cancel()
		ended = req.Context().Err()
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	req.Header = bearing(right)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, req)
	if !errors.Is(ended, context.Canceled) || w.Code != http.StatusServiceUnavailable {
		t.Errorf("the review ended with %v, the request with status %d", ended, w.Code)
	}
	if lines := e.logged(); len(lines) > 0 {
		t.Errorf("the log is %q", lines)
	}
}

// testFlood tests that made-up tokens are rate limited, and that a valid token is authorized after
// the flood.
func (b *bed) testFlood(t *testing.T, right string) {
	e, begin := serve(t, b.kube.Config), time.Now()
	var mu sync.Mutex
	codes := map[int]int{}
	var flood sync.WaitGroup
	for i := range 200 {
		flood.Go(func() {
			code, err := e.try(t.Context(), fmt.Sprintf("made-up-%d", i))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	flood.Wait()
	reviews := len(strings.Fields(e.asked()))
	most := reviewBurst + int(reviewsPerSecond*time.Since(begin).Seconds()) + 1
	if reviews == 0 || reviews > most || codes[http.StatusUnauthorized] > reviews || codes[http.StatusUnauthorized]+
		codes[http.StatusServiceUnavailable] != 200 {
		t.Errorf("%d reviews, want %d at most; by status: %v", reviews, most, codes)
	}
	t.Logf("%d reviews in %v, by status: %v", reviews, time.Since(begin), codes)
	poll.Await(t, "the valid token to be authorized", func() error {
		if code := e.get(t, right); code != http.StatusOK {
			return fmt.Errorf("status %d", code)
		}
		return nil
	})
}
