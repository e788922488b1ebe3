//go:build node && linux

package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
)

const (
	shop      = "shop" // a namespace that the policy covers
	own       = operator.Namespace
	manager   = "countersign-manager"
	configs   = "countersign" // the name of both webhook configurations
	patience  = 3 * time.Minute
	poll      = 200 * time.Millisecond
	refreshed = 75 * time.Second // more than two refresh intervals of 30 s
)

// A bed is a cluster with a registry and a Notary server. Pods can reach both.
type bed struct {
	client.Client
	*cluster
	clients  *kubernetes.Clientset
	registry *localRegistry
	notary   *notaryserver.Server
	signer   *notaryserver.Client
	pin      notaryserver.RootPin
	images   map[string]registryserver.Image // of workloads, by tag
	shipped  map[string]registryserver.Image // of the operator, by reference
}

// newBed runs everything until the test ends. The kernel ends all remaining processes with this
// one.
func newBed(t *testing.T) *bed {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	p, err := readPrepared()
	must(t, err)
	b := &bed{images: make(map[string]registryserver.Image)}
	b.registry, err = startRegistry(p.Port)
	must(t, err)
	t.Cleanup(b.registry.stop)
	pause, err := b.registry.push(t.Context(), p.Dir+"/sleep", "pause:v1")
	must(t, err)
	b.cluster, err = newCluster(p, pause.Reference())
	must(t, err)
	t.Cleanup(b.stop)
	p.say("Starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet and kube-proxy")
	must(t, b.start(t.Context()))
	b.connect(t)
	b.shipped, err = b.registry.restore(t.Context(), b.path("images"), b.registry.host()+"/countersign/countersign")
	must(t, err)
	p.say("Starting notary-server with notary-signer, and signing as ci and qa")
	b.notary = notaryserver.Run(t, notaryserver.Options{Signer: true, Host: nodeIP})
	b.signer = notaryserver.RunClient(t, b.notary)
	for _, tag := range []string{"v0", "v1", "v2", "v3", "v4"} {
		b.push(t, tag)
	}
	b.repository(t, b.workload())
	b.pin, err = b.signer.Root(b.workload())
	must(t, err)
	return b
}

// connect makes the clients of the cluster.
func (b *bed) connect(t *testing.T) {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	var err error
	b.Client, err = client.New(b.config, client.Options{Scheme: scheme})
	must(t, err)
	b.clients, err = kubernetes.NewForConfig(b.config)
	must(t, err)
}

// workload returns the repository of the workloads' images, in the registry and on the Notary
// server.
func (b *bed) workload() string { return b.registry.host() + "/acme/app" }

// tag returns the workloads' image with a tag.
func (b *bed) tag(tag string) string { return b.workload() + ":" + tag }

// push pushes a new image with a tag into the workloads' repository.
func (b *bed) push(t *testing.T, tag string) {
	t.Helper()
	image, err := b.registry.push(t.Context(), b.path("sleep"), "acme/app:"+tag)
	must(t, err)
	b.images[tag] = image
}

// repository makes a Notary repository with the roles ci and qa.
func (b *bed) repository(t *testing.T, name string) {
	t.Helper()
	_, err := b.signer.CreateRepository(t.Context(), name, "ci", "qa")
	must(t, err)
}

// sign signs the current image of a tag.
func (b *bed) sign(t *testing.T, tag string, roles ...string) {
	t.Helper()
	b.signAs(t, b.images[tag], tag, roles...)
}

func (b *bed) signAs(t *testing.T, image registryserver.Image, tag string, roles ...string) {
	t.Helper()
	var delegations []string
	for _, r := range roles {
		delegations = append(delegations, "targets/"+r)
	}
	must(t, b.signer.AddHash(t.Context(), image.Repository, tag, image.Size, image.Hex, delegations...))
}

func (b *bed) trustRoot() *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme-notary"},
		Spec: v1alpha1.TrustRootSpec{
			RefreshInterval: metav1.Duration{Duration: 30 * time.Second},
			Notary: &v1alpha1.NotarySpec{
				Server:   b.notary.URL,
				CABundle: v1alpha1.PEMBundle(b.notary.CA.PEM),
				Root:     v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(b.pin.KeyID)}},
			},
		},
	}
}

// policy returns a policy that requires ci and qa for the workloads' images and the operator's own,
// in production namespaces.
func (b *bed) policy() *v1alpha1.ImagePolicy {
	host := b.registry.host()
	return &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "production"},
		Spec: v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{
				v1alpha1.ImagePattern(host + "/acme/**"), v1alpha1.ImagePattern(host + "/countersign/**"),
			},
			TrustRoots: []v1alpha1.ObjectName{"acme-notary"},
			NamespaceSelector: &v1alpha1.NamespaceSelector{
				MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
			},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
		},
	}
}

// pod returns a Pod with a short grace period.
func pod(image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, GenerateName: "p-"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers:                    []corev1.Container{{Name: "app", Image: image}},
		},
	}
}

// running waits until the kubelet runs a Pod, and returns it.
func (b *bed) running(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	b.await(t, "Pod "+p.Name+" to run", func(ctx context.Context) error {
		if err := b.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodRunning || len(p.Status.ContainerStatuses) == 0 ||
			!p.Status.ContainerStatuses[0].Ready {
			return fmt.Errorf("got phase %q, %+v", p.Status.Phase, p.Status.ContainerStatuses)
		}
		return nil
	})
	return p
}

// denied checks that err is the webhook's verdict that an image is not signed, with a message that
// contains all texts.
func denied(t *testing.T, err error, texts ...string) {
	t.Helper()
	refused(t, err, http.StatusForbidden, texts...)
}

// refused checks that err is a denial of the webhook with a status, and a message that contains all
// texts.
func refused(t *testing.T, err error, code int32, texts ...string) {
	t.Helper()
	must(t, refusal(err, code))
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got denial %q, want it to contain %q", err, text)
		}
	}
}

// refusal returns nil if err is a denial of the webhook with a status.
func refusal(err error, code int32) error {
	if err == nil {
		return fmt.Errorf("admitted, want a denial by the admission webhook with status %d", code)
	}
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || status.Status().Code != code ||
		!strings.Contains(err.Error(), "denied the request") {
		return fmt.Errorf("got %w, want a denial by the admission webhook with status %d", err, code)
	}
	return nil
}

// await polls until ok returns nil.
func (b *bed) await(t *testing.T, what string, ok func(context.Context) error) {
	t.Helper()
	b.awaitFor(t, patience, what, ok)
}

// awaitFor is await with a time limit.
func (b *bed) awaitFor(t *testing.T, limit time.Duration, what string, ok func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for {
		if err := ok(ctx); err == nil {
			return
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, last)
		case <-tick.C:
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
