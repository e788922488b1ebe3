package metricsauth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
)

// Tokens of users from the token file of the API server. It stands for any authenticator that an
// administrator configures.
const (
	anonymousToken = "of-the-anonymous"
	unknownToken   = "of-somebody-unauthenticated"
	groupToken     = "of-a-member-of-scrapers"
	staticTokens   = anonymousToken + ",system:anonymous,1\n" +
		unknownToken + `,somebody,2,"system:unauthenticated"` + "\n" +
		groupToken + `,member,3,"scrapers"` + "\n"
)

// bed is a real API server with RBAC.
type bed struct {
	client.Client
	kube *kubeserver.Server
	key  *ecdsa.PrivateKey // signs tokens of ServiceAccounts
}

func newBed(t *testing.T) *bed {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	dir, tokens := t.TempDir(), filepath.Join(t.TempDir(), "tokens.csv")
	must(t, os.WriteFile(tokens, []byte(staticTokens), 0o600))
	b := &bed{
		kube: kubeserver.Run(t, kubeserver.Options{
			WithoutCRDs: true, Dir: dir, APIServerArgs: []string{"--token-auth-file", tokens},
		}),
	}
	c, err := client.New(b.kube.Config, client.Options{})
	must(t, err)
	b.Client = c
	text, err := os.ReadFile(filepath.Join(dir, "service-account.key"))
	must(t, err)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	var ok bool
	if b.key, ok = key.(*ecdsa.PrivateKey); !ok {
		t.Fatalf("the key of tokens is a %T", key)
	}
	b.allow(t, "scrape", rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}},
		rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "scrapers"},
		// A rule for all groups must not open the metrics to clients without credentials.
		rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:anonymous"},
		rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:unauthenticated"})
	return b
}

// allow makes a ClusterRole with one rule and binds it to a subject.
func (b *bed) allow(t *testing.T, name string, rule rbacv1.PolicyRule,
	subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	t.Helper()
	must(t,
		b.Create(t.Context(), &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule},
		}))
	return b.bind(t, name, name, subjects...)
}

func (b *bed) bind(t *testing.T, name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects,
	}
	must(t, b.Create(t.Context(), binding))
	return binding
}

// account makes a ServiceAccount, binds it to the role where there is one, and returns its token.
func (b *bed) account(t *testing.T, name, role string, audiences ...string) (account *corev1.ServiceAccount,
	token string) {
	t.Helper()
	account = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name}}
	must(t, b.Create(t.Context(), account))
	if role != "" {
		b.bind(t, name, role, subject(name))
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	must(t, b.SubResource("token").Create(t.Context(), account, request))
	return account, request.Status.Token
}

func subject(account string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceDefault, Name: account}
}

// until signs the token of a ServiceAccount again, with another expiry.
func (b *bed) until(t *testing.T, token string, expiry time.Time) string {
	t.Helper()
	parts := strings.Split(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(text, &claims))
	claims["iat"], claims["nbf"], claims["exp"] = expiry.Add(-2*time.Hour).Unix(), expiry.Add(-2*time.Hour).
		Unix(), expiry.Unix()
	text, err = json.Marshal(claims)
	must(t, err)
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(text)
	digest := sha256.Sum256([]byte(signed))
	x, y, err := ecdsa.Sign(rand.Reader, b.key, digest[:])
	must(t, err)
	signature := make([]byte, 64)
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// asks is a transport to the API server that records the requests.
type asks struct {
	http.RoundTripper
	// meanwhile, where set, is called before each request is sent.
	meanwhile func(*http.Request)
	// answer, where set, replaces the response of the API server.
	answer func([]byte) []byte

	mu    sync.Mutex
	paths []string
	last  []byte // the body
}

// RoundTrip implements http.RoundTripper.
func (a *asks) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.paths, a.last = append(a.paths, filepath.Base(req.URL.Path)), text
	a.mu.Unlock()
	if a.meanwhile != nil {
		a.meanwhile(req)
	}
	resp, err := a.RoundTripper.RoundTrip(req)
	if err != nil || a.answer == nil {
		return resp, err
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	text = a.answer(text)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, nil
}

// asked returns the requests since the last call.
func (a *asks) asked() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	paths := strings.Join(a.paths, " ")
	a.paths = nil
	return paths
}

// endpoint is a handler behind the filter.
type endpoint struct {
	http.Handler
	*asks
	url string

	mu  sync.Mutex
	log []string
}

const served = "what is served"

// serve runs a handler behind the filter, which connects to the API server with a configuration.
func serve(t *testing.T, config *rest.Config) *endpoint {
	t.Helper()
	config = rest.CopyConfig(config)
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json" // for asks
	direct, err := rest.HTTPClientFor(config)
	must(t, err)
	e := &endpoint{asks: &asks{RoundTripper: direct.Transport}}
	filter, err := Filter(config, &http.Client{Transport: e.asks})
	must(t, err)
	log := funcr.New(func(_, line string) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.log = append(e.log, line)
	}, funcr.Options{})
	e.Handler, err = filter(log,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, served) }))
	must(t, err)
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

func (e *endpoint) logged() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log
}

// get sends a request with a token, and returns the status.
func (e *endpoint) get(t *testing.T, token string) int {
	t.Helper()
	code, err := e.try(t.Context(), token)
	must(t, err)
	return code
}

func (e *endpoint) try(ctx context.Context, token string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
