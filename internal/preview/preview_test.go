package preview

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/policy"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

const image = "registry.example.com/acme/app:v1"

// production is a policy of every image in the namespaces with a label.
func production(labels map[string]v1alpha1.LabelValue) *v1alpha1.ImagePolicy {
	p := &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "production"},
		Spec: v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"acme"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
		},
	}
	if labels != nil {
		p.Spec.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchLabels: labels}
	}
	return p
}

// fails is a reader whose reads fail.
type fails struct {
	client.Reader
	err error
}

func (f fails) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return f.err
}

func forbidden(resource, name string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, name, errors.New("no rule"))
}

func engine(t *testing.T, s Source) *Engine {
	t.Helper()
	e, err := New(t.Context(), Options{Source: s, Settings: flags.Settings{
		Namespace: "countersign-system", Uncovered: policy.UncoveredAllow, ShortNames: "DockerIO",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Without the labels of a namespace, a policy that denies there might not hold. So nothing is
// admitted while a policy depends on labels that are not known.
func TestThreatUnknownLabelsAdmitNothing(t *testing.T) {
	byLabel := production(map[string]v1alpha1.LabelValue{"env": "production"})
	expression := production(nil)
	expression.Spec.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchExpressions: []v1alpha1.NamespaceRequirement{{
		Key: "env", Operator: "Exists",
	}}}
	byName := production(map[string]v1alpha1.LabelValue{corev1.LabelMetadataName: "shop"})
	for name, tt := range map[string]struct {
		policy    *v1alpha1.ImagePolicy
		namespace Namespace
		want      policy.Verdict
		says      string
	}{
		"not known":         {byLabel, Namespace{Name: "shop"}, policy.CouldNotCheck, "--namespace-labels"},
		"not known, Exists": {expression, Namespace{Name: "shop"}, policy.CouldNotCheck, "--namespace-labels"},
		"not readable": {
			byLabel, Namespace{Name: "shop", Err: errors.New("no right")}, policy.CouldNotCheck, "no right",
		},
		"known to be none": {byLabel, Namespace{Name: "shop", Known: true}, policy.Admitted, ""},
		"exempt":           {byLabel, Namespace{Name: "kube-system"}, policy.Admitted, "is exempt"},
		"selected by name": {byName, Namespace{Name: "shop"}, policy.CouldNotCheck, ""},
		"of another name":  {byName, Namespace{Name: "lab"}, policy.Admitted, ""},
		"a label that names another namespace": {
			byName, Namespace{
				Name: "shop", Known: true, Labels: map[string]string{corev1.LabelMetadataName: "lab"},
			}, policy.CouldNotCheck, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, Source{ImagePolicies: []*v1alpha1.ImagePolicy{tt.policy}})
			got, err := e.Judge(t.Context(), tt.namespace, []string{image})
			if err != nil || got.Verdict != tt.want || got.Images[0].Decision.Verdict != tt.want ||
				!strings.Contains(got.Reason, tt.says) {
				t.Errorf("got %+v, %v; want verdict %d and %q", got, err, tt.want, tt.says)
			}
		})
	}
}

// Break-glass admits what would be denied, as at the gate, and says so.
func TestBreakGlass(t *testing.T) {
	e := engine(t, Source{ImagePolicies: []*v1alpha1.ImagePolicy{production(nil)}})
	for value, want := range map[string]policy.Verdict{"INC-1": policy.Admitted, "": policy.CouldNotCheck} {
		got, err := e.Judge(t.Context(), Namespace{
			Name: "shop", Known: true, Labels: map[string]string{v1alpha1.LabelBreakGlass: value},
		}, []string{image})
		if err != nil || got.Verdict != want || strings.Contains(got.Reason, "INC-1") != (value != "") {
			t.Errorf("label %q: got %+v, %v; want verdict %d", value, got, err, want)
		}
	}
}

// A Secret that the user may not read makes its TrustRoot unusable, with the right that is missing.
// Any other error of the API server is one of New.
func TestMissingRight(t *testing.T) {
	tr := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: v1alpha1.TrustRootSpec{
		Notary: &v1alpha1.NotarySpec{
			Server: "https://notary.example.com", CredentialsSecretRef: &v1alpha1.SecretReference{Name: "reader"},
			Root: v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(strings.Repeat("a", 64))}},
		},
	}}
	source := Source{
		ImagePolicies: []*v1alpha1.ImagePolicy{production(nil)}, TrustRoots: []*v1alpha1.TrustRoot{tr},
		Reader: fails{err: forbidden("secrets", "reader")},
	}
	got, err := engine(t, source).Judge(t.Context(), Namespace{Name: "shop", Known: true}, []string{image})
	if err != nil {
		t.Fatal(err)
	}
	text := got.Images[0].Decision.Message
	if got.Verdict != policy.CouldNotCheck || !strings.Contains(text, `secrets "reader" is forbidden`) ||
		!strings.Contains(text, "get that right") {
		t.Errorf("got %d and %q, want CouldNotCheck and the right", got.Verdict, text)
	}
	source.Reader = fails{err: errors.New("the API server is gone")}
	if _, err := New(t.Context(), Options{Source: source}); err == nil {
		t.Error("got no error where the API server fails, want one")
	}
}

// The error about a Namespace says what to do.
func TestNamespace(t *testing.T) {
	for want, tt := range map[string]struct {
		err     error
		cluster bool
	}{
		"": {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), false},
		`namespace "shop" does not exist in the cluster: set --namespace, or its labels with --namespace-labels`: {
			apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), true,
		},
		`you may not get the Namespace "shop": get that right, or set its labels with --namespace-labels`: {
			forbidden("namespaces", "shop"), true,
		},
		`the labels of namespace "shop" could not be read: gone`: {errors.New("gone"), true},
	} {
		n := Source{Reader: fails{err: tt.err}, Cluster: tt.cluster}.Namespace(t.Context(), "shop")
		if n.Known || (n.Err == nil) != (want == "") || n.Err != nil && !strings.HasPrefix(n.Err.Error(), want) {
			t.Errorf("got %+v, want %q", n, want)
		}
	}
}

// Docker's configuration gives a user name with a password. An error says what to do about anything
// else.
func TestDocker(t *testing.T) {
	for name, tt := range map[string]struct {
		config authn.AuthConfig
		err    error
		anew   bool
		want   string // of the error
	}{
		"a password": {config: authn.AuthConfig{Username: "dev", Password: "s3cret"}},
		"refused before": {
			config: authn.AuthConfig{Username: "dev", Password: "s3cret"}, anew: true, want: `refused user "dev"`,
		},
		"nothing": {want: "docker login registry.example.com"},
		"a token": {
			config: authn.AuthConfig{IdentityToken: "s3cret"},
			want:   "a token for registry.example.com in place of a password",
		},
		"a helper fails": {err: errors.New("no helper"), want: "could not be read for registry.example.com: no helper"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Docker(func(context.Context, authn.Resource) (authn.Authenticator, error) {
				return authn.FromConfig(tt.config), tt.err
			})
			found, err := keychain{d}.Credentials(t.Context(), "shop", "registry.example.com/acme/app", tt.anew)
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("got %v, want %q without the secret", err, tt.want)
				}
			case err != nil || len(found.Credentials) != 1 || found.Credentials[0].Password != "s3cret":
				t.Errorf("got %+v, %v; want the password", found, err)
			}
		})
	}
}

// A Notary server gets the credentials for its own host, over https only.
func TestServerAccount(t *testing.T) {
	var asked []string
	d := Docker(func(_ context.Context, target authn.Resource) (authn.Authenticator, error) {
		asked = append(asked, target.RegistryStr())
		return &authn.Basic{Username: "dev", Password: "s3cret"}, nil
	})
	for server, want := range map[string]string{
		"https://notary.example.com:4443": "notary.example.com:4443", "http://localhost:1": "",
	} {
		asked = nil
		username, _, err := d.serverAccount(server)
		if err != nil || strings.Join(asked, " ") != want || (username == "dev") != (want != "") {
			t.Errorf("%s: got user %q for %q, %v; want %q", server, username, asked, err, want)
		}
	}
}
