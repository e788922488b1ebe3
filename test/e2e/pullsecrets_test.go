package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// secretsAudit makes the API server log each request for a Secret or a ServiceAccount.
const secretsAudit = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
	{"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts"]}]},
	{"level": "None"}
]}`

// managerUser is the user name of the manager.
const managerUser = "system:serviceaccount:" + operator.Namespace + ":countersign-manager"

// auditBed is a cluster that logs who reads Secrets and ServiceAccounts.
type auditBed struct {
	*bed
	log string
}

func newAuditBed(t *testing.T) *auditBed {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	must(t, os.WriteFile(policy, []byte(secretsAudit), 0o600))
	a := &auditBed{bed: &bed{}, log: filepath.Join(dir, "audit.log")}
	a.kube = kubeserver.Run(t, kubeserver.Options{
		APIServerArgs: []string{"--audit-policy-file", policy, "--audit-log-path", a.log},
	})
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(a.kube.Config, client.Options{Scheme: scheme})
	must(t, err)
	a.Client = c
	return a
}

// readElsewhere returns what the manager has requested of Secrets and ServiceAccounts outside of
// its own namespace, each once.
func (a *auditBed) readElsewhere(t *testing.T) []string {
	t.Helper()
	log, err := os.ReadFile(a.log)
	must(t, err)
	var requests []string
	for line := range bytes.Lines(log) {
		var event struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ Resource, Namespace, Name string }
		}
		must(t, json.Unmarshal(line, &event))
		o := event.ObjectRef
		if event.User.Username == managerUser && o.Namespace != operator.Namespace {
			requests = append(requests, fmt.Sprintf("%s %s %s/%s", event.Verb, o.Resource, o.Namespace, o.Name))
		}
	}
	slices.Sort(requests)
	return slices.Compact(requests)
}

// protect makes a policy for a registry that requires a password, which only a pull secret of the
// namespace has. A Pod with that pull secret runs.
func (a *auditBed) protect(t *testing.T, images *distribution.Server) {
	t.Helper()
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: production}})
	a.create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: production, Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil,
			`{"auths": {%q: {"username": "reader", "password": "s3cret"}}}`, images.Host)},
	})
	a.create(t, a.pulling(images))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	a.create(t, &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: v1alpha1.TrustRootSpec{
		Registries: []v1alpha1.Registry{{Host: images.Host, CABundle: v1alpha1.RegistryCABundle(images.CA.PEM)}},
		Sigstore: &v1alpha1.SigstoreSpec{Roles: []v1alpha1.SigstoreRole{{
			Name: "ci",
			Keys: []v1alpha1.PEM{v1alpha1.PEM(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))},
		}}},
	}})
	policy := a.policy("production", images.Host+"/**", "acme", "ci")
	policy.Spec.NamespaceSelector = nil
	a.create(t, policy)
}

// pulling returns a Pod that names the pull secret.
func (*auditBed) pulling(images *distribution.Server) *corev1.Pod {
	p := pod(production, images.Host+"/acme/app:v1")
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	return p
}

// Without --use-pull-secrets the manager reads no Secret of another namespace and no
// ServiceAccount, although a registry refuses it and Pods name a pull secret. With the flag it
// does: otherwise the log would prove nothing.
func TestThreatSecretsOfOtherNamespacesWithoutTheFlag(t *testing.T) {
	t.Parallel()
	a := newAuditBed(t)
	images := distribution.Run(t, distribution.Options{Username: "reader", Password: "s3cret"})
	a.protect(t, images)
	for _, test := range []struct {
		name, says string
		args       []string
		reads      []string
	}{
		{name: "without the flag", says: "wants a user name and password"},
		{
			// It lacks the rights of the component, so that it never gets to the Secret.
			"with the flag", "could not read the ServiceAccount", []string{"--use-pull-secrets"},
			[]string{"get serviceaccounts shop/default"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			operator.RunWith(t, a.kube, operator.Options{Args: test.args, MayMissRights: test.args != nil})
			a.ready(t, &v1alpha1.ImagePolicy{}, "production", metav1.ConditionTrue, v1alpha1.ReasonInForce)
			poll.Await(t, "the denial of the Pod", func() error {
				err := a.Create(t.Context(), a.pulling(images), client.DryRunAll)
				if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), test.says) {
					return fmt.Errorf("got %w, want a denial with status 503 that says %q", err, test.says)
				}
				return nil
			})
			check := func() {
				t.Helper()
				if got := a.readElsewhere(t); !slices.Equal(got, test.reads) {
					t.Errorf("got the requests %q, want %q", got, test.reads)
				}
			}
			check()
			if test.args == nil { // what runs was read too
				a.condition(t, &v1alpha1.TrustRoot{}, "acme", v1alpha1.ConditionFresh, metav1.ConditionFalse,
					v1alpha1.ReasonUnauthorized)
				check()
			}
		})
	}
}
