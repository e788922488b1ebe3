package pullsecrets_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/pullsecrets"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	repository = "registry.example.com/acme/app"
	password   = "s3cret-passw0rd"
)

// reads records the reads that go to the API server.
type reads struct {
	client.Reader

	mu  sync.Mutex
	all []string
}

func (r *reads) add(read string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, read)
}

func (r *reads) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	slices.Sort(all)
	return all
}

func (r *reads) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	r.add(fmt.Sprintf("get %T %s", o, key))
	return r.Reader.Get(ctx, key, o, options...)
}

func (r *reads) List(ctx context.Context, l client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	r.add(fmt.Sprintf("list %T %s", l, o.ApplyOptions(options).Namespace))
	return r.Reader.List(ctx, l, options...)
}

func pullSecret(namespace, name, registry, username string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil,
			`{"auths": {%q: {"username": %q, "password": %q}}}`, registry, username, password)},
	}
}

func account(namespace, name string, secrets ...string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, ImagePullSecrets: references(secrets),
	}
}

func references(names []string) []corev1.LocalObjectReference {
	var all []corev1.LocalObjectReference
	for _, name := range names {
		all = append(all, corev1.LocalObjectReference{Name: name})
	}
	return all
}

func runningPod(namespace, name, account string, secrets ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, ImagePullSecrets: references(secrets),
			Containers: []corev1.Container{{Name: "c", Image: repository + ":v1"}},
		},
	}
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// users returns the user names of the credentials that are found, and the notes.
func users(t *testing.T, f *pullsecrets.Finder, namespace string, anew bool) (names, notes []string) {
	t.Helper()
	found, err := f.Credentials(t.Context(), namespace, repository, anew)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found.Credentials {
		names = append(names, c.Username)
		if c.Password != password {
			t.Errorf("%s: got the password %q, want %q", c.Username, c.Password, password)
		}
	}
	for _, note := range found.Notes {
		if strings.Contains(note, password) {
			t.Errorf("got a password in the note %q", note)
		}
	}
	return names, found.Notes
}

func wantUsers(t *testing.T, f *pullsecrets.Finder, namespace string, anew bool, want ...string) {
	t.Helper()
	got, _ := users(t, f, namespace, anew)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("users in %s (-want +got):\n%s", namespace, diff)
	}
}

func wantReads(t *testing.T, r *reads, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, r.taken()); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
}

// plane has the namespaces team-a and team-b.
func plane(t *testing.T) (*controlplane.Plane, *reads) {
	t.Helper()
	p := controlplane.Run(t,
		namespace("team-a"), namespace("team-b"), account("team-a", "default", "of-default"),
		account("team-a", "builder", "of-builder", "gone"), account("team-b", "default"),
		pullSecret("team-a", "pull", "registry.example.com", "pull-a"),
		pullSecret("team-a", "of-default", "registry.example.com", "default-a"),
		pullSecret("team-a", "of-builder", "registry.example.com/acme", "builder-a"),
		pullSecret("team-a", "elsewhere", "registry.example.org", "elsewhere-a"),
		pullSecret("team-b", "pull", "registry.example.com", "pull-b"),
		pullSecret("team-b", "second", "registry.example.com", "second-b"),
	)
	return p, &reads{Reader: p}
}

// The pull secrets are those of the Pod, then of its service account, in the Pod's namespace.
func TestFinder(t *testing.T) {
	p, r := plane(t)
	clock := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	f := pullsecrets.New(r, clock)

	t.Run("of a Pod and its service account", func(t *testing.T) {
		f.Note("team-a", pullsecrets.User{Secrets: []string{"pull", "elsewhere", "none", ""}})
		wantReads(t, r) // noting reads nothing
		got, notes := users(t, f, "team-a", false)
		if diff := cmp.Diff([]string{"pull-a", "default-a"}, got); diff != "" {
			t.Errorf("users (-want +got):\n%s", diff)
		}
		want := []string{`Secret "elsewhere" has no entry for this repository`, `Secret "none" does not exist`}
		if diff := cmp.Diff(want, notes); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
		wantReads(t, r, "get *v1.Secret team-a/elsewhere", "get *v1.Secret team-a/none",
			"get *v1.Secret team-a/of-default", "get *v1.Secret team-a/pull", "get *v1.ServiceAccount team-a/default")
	})
	t.Run("the latest first, and all read once", func(t *testing.T) {
		f.Note("team-a", pullsecrets.User{ServiceAccount: "builder"})
		for range 500 {
			wantUsers(t, f, "team-a", false, "builder-a", "pull-a", "default-a")
		}
		wantReads(t, r, "get *v1.Secret team-a/gone", "get *v1.Secret team-a/of-builder",
			"get *v1.ServiceAccount team-a/builder")
	})
	t.Run("of another namespace", func(t *testing.T) {
		f.Note("team-b", pullsecrets.User{Secrets: []string{"pull"}})
		got, notes := users(t, f, "team-b", false)
		if diff := cmp.Diff([]string{"pull-b"}, got); diff != "" || len(notes) > 0 { // of its own service account
			t.Errorf("got notes %q, want none; users (-want +got):\n%s", notes, diff)
		}
	})
	t.Run("names that no object can have", func(t *testing.T) {
		f.Note("team-b", pullsecrets.User{Secrets: []string{"../pull", "a/b"}, ServiceAccount: "a/b"})
		wantUsers(t, f, "team-b", false, "pull-b")
	})
	t.Run("another password counts within a minute", func(t *testing.T) {
		renamed := pullSecret("team-b", "pull", "registry.example.com", "renamed-b")
		if err := p.Update(t.Context(), renamed); err != nil {
			t.Fatal(err)
		}
		wantUsers(t, f, "team-b", false, "pull-b")
		clock.Step(time.Minute)
		wantUsers(t, f, "team-b", false, "renamed-b")
	})
	t.Run("another password counts at once after a refusal", func(t *testing.T) {
		clock.Step(6 * time.Second)
		if err := p.Update(t.Context(), pullSecret("team-b", "pull", "registry.example.com", "again-b")); err != nil {
			t.Fatal(err)
		}
		wantUsers(t, f, "team-b", false, "renamed-b")
		wantUsers(t, f, "team-b", true, "again-b")
	})
}

// A replica that has seen no request for a namespace uses the pull secrets of the Pods that run
// there: after a restart, or where another replica admitted them.
func TestFinderUsesWhatRuns(t *testing.T) {
	p, r := plane(t)
	clock := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	p.Make(t, runningPod("team-a", "web", "builder"))
	p.Make(t, runningPod("team-b", "web", "", "second"))
	ended := runningPod("team-b", "ended", "", "pull")
	p.Make(t, ended)
	ended.Status.Phase = corev1.PodSucceeded
	if err := p.Status().Update(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	f := pullsecrets.New(r, clock)
	// The admission plugin of the API server has merged what the service account names into the
	// Pod.
	wantUsers(t, f, "team-a", false, "builder-a")
	wantUsers(t, f, "team-b", false, "second-b")
	wantReads(t, r, "get *v1.Secret team-a/gone", "get *v1.Secret team-a/of-builder", "get *v1.Secret team-b/second",
		"get *v1.ServiceAccount team-a/builder", "get *v1.ServiceAccount team-b/default", "list *v1.PodList team-a",
		"list *v1.PodList team-b")
	for range 10 {
		wantUsers(t, f, "team-a", false, "builder-a")
	}
	wantReads(t, r)

	// What was noted, and is refused, is not all: another Pod runs with another secret.
	f = pullsecrets.New(r, clock)
	f.Note("team-b", pullsecrets.User{Secrets: []string{"pull"}})
	wantUsers(t, f, "team-b", false, "pull-b")
	wantUsers(t, f, "team-b", true, "pull-b", "second-b")
}

// Without the rights of the component pull-secrets nothing is read, and the fault says what to
// grant. With them, the operator reads single Secrets and service accounts, and lists none.
func TestRights(t *testing.T) {
	p, _ := plane(t)
	connect := rest.CopyConfig(p.Kube.Config)
	connect.Impersonate.UserName = "system:serviceaccount:countersign-system:countersign-manager"
	live, err := client.New(connect, client.Options{Scheme: p.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	subject := []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: connect.Impersonate.UserName}}
	grant := func(name string, rules ...rbacv1.PolicyRule) {
		p.Make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules})
		p.Make(t, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		})
	}
	user := pullsecrets.User{Secrets: []string{"pull"}}
	find := func() error {
		f := pullsecrets.New(live, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)))
		f.Note("team-a", user)
		_, err := f.Credentials(t.Context(), "team-a", repository, false)
		return err
	}
	wantUnreadable(t, find(), `ServiceAccount "default" of namespace "team-a"`, "get serviceaccounts")
	core := func(resource string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{resource}, Verbs: []string{"get"}}
	}
	grant("countersign-service-accounts", core("serviceaccounts"))
	poll.Await(t, "the right to read service accounts", func() error { // the API server loads it in the background
		if err := find(); err == nil || strings.Contains(err.Error(), "serviceaccounts") {
			return fmt.Errorf("got %w, want that only the right to read Secrets is missing", err)
		}
		return nil
	})
	wantUnreadable(t, find(), `Secret "pull" of namespace "team-a"`, "get secrets")
	grant("countersign-pull-secrets", core("secrets"))
	poll.Await(t, "the rights", find)
}

// wantUnreadable checks that an error is the fault of a missing right, and says what to grant.
func wantUnreadable(t *testing.T, err error, words ...string) {
	t.Helper()
	if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonPullSecretsUnreadable ||
		!apierrors.IsForbidden(errors.Unwrap(errors.Unwrap(f.Err))) {
		t.Errorf("got %v, want a fault PullSecretsUnreadable", err)
	}
	for _, word := range append(words, "--use-pull-secrets", "install the component pull-secrets") {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want %q in it", err, word)
		}
	}
}
