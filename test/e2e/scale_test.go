package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const (
	scaleNamespaces   = 50
	scaleWorkloads    = 2000
	scalePods         = 10_000
	scaleRepositories = 5
	// Of every 20 workloads one runs an image that nobody signed and two one that ci alone signed.
	scaleUnsigned = scaleWorkloads / 20
	scaleCIOnly   = 2 * scaleWorkloads / 20
)

// BenchmarkCompliance10000Pods measures how long the manager takes to count what violates a policy
// among 10,000 Pods, after its start and after an edit of the policy, and what memory they cost.
// Every count must be exact.
func BenchmarkCompliance10000Pods(b *testing.B) {
	s := newScale(b)
	before := s.start(b)
	s.counts(b, 0, 0)
	idle, idlePeak, err := before.Memory()
	check(b, err)
	s.stop(b, before)
	s.createPods(b)

	begin := time.Now()
	manager := s.start(b)
	s.counts(b, scaleWorkloads, scaleUnsigned+scaleCIOnly)
	started := time.Since(begin)
	s.say("%.1f s from the start of the manager to the right counts", started.Seconds())

	var edits []time.Duration
	for i := 0; b.Loop(); i++ {
		begin := time.Now()
		if i%2 == 0 {
			s.require(b, "ci")
			s.counts(b, scaleWorkloads, scaleUnsigned)
		} else {
			s.require(b, "ci", "qa")
			s.counts(b, scaleWorkloads, scaleUnsigned+scaleCIOnly)
		}
		edits = append(edits, time.Since(begin))
		s.say("%.2f s from an edit of the policy to the right counts", edits[i].Seconds())
	}
	slices.Sort(edits)
	resident, peak, err := manager.Memory()
	check(b, err)
	s.say("memory: %.0f MiB, at its peak %.0f; without Pods %.0f and %.0f", resident, peak, idle, idlePeak)
	b.ReportMetric(started.Seconds(), "s/start")
	b.ReportMetric(edits[len(edits)/2].Seconds(), "s/policy-edit")
	b.ReportMetric(idle, "MiB-idle")
	b.ReportMetric(resident-idle, "MiB-more")
	b.ReportMetric(peak-idlePeak, "MiB-more-at-peak")
}

// scale is a control plane without controllers, so that nothing but the test makes or deletes Pods.
type scale struct {
	client.Client
	kube   *kubeserver.Server
	binary string
	begin  time.Time
}

// newScale makes everything but Pods. The manager is built as it is released, without the race
// detector.
func newScale(b *testing.B) *scale {
	b.Helper()
	s := &scale{begin: time.Now()}
	s.say("starting the servers")
	s.kube = kubeserver.Run(b, kubeserver.Options{})
	notary := notaryserver.Run(b, notaryserver.Options{Signer: true})
	scheme := runtime.NewScheme()
	check(b, clientgoscheme.AddToScheme(scheme))
	check(b, v1alpha1.AddToScheme(scheme))
	config := rest.CopyConfig(s.kube.Config)
	config.QPS = -1
	var err error
	s.Client, err = client.New(config, client.Options{Scheme: scheme})
	check(b, err)
	s.binary, err = operator.Build(b.Context(), b.TempDir(), false)
	check(b, err)

	signer := notaryserver.RunClient(b, notary)
	for i := range scaleRepositories {
		_, err := signer.CreateRepository(b.Context(), scaleRepository(i), "ci", "qa")
		check(b, err)
		check(b,
			signer.AddHash(b.Context(), scaleRepository(i), "both", 512, scaleHex(i, "both"), "targets/ci",
				"targets/qa"))
		check(b, signer.AddHash(b.Context(), scaleRepository(i), "ci", 512, scaleHex(i, "ci"), "targets/ci"))
	}
	pin, err := signer.Root(scaleRepository(0))
	check(b, err)
	like := &bed{notary: notary, pin: pin}
	check(b, s.Create(b.Context(), like.trustRoot("acme-notary")))
	check(b, s.Create(b.Context(), like.policy("production", registry+"/acme/**", "acme-notary", "ci", "qa")))
	for i := range scaleNamespaces {
		check(b,
			s.Create(b.Context(), &corev1.Namespace{
				ObjectMeta: metav1.ObjectMeta{Name: scaleNamespace(i), Labels: map[string]string{"env": "production"}},
			}))
	}
	return s
}

// start starts a manager that runs until the benchmark ends.
func (s *scale) start(b *testing.B) *operator.Manager {
	b.Helper()
	m, err := operator.Start(b.Context(), s.kube, operator.Options{Binary: s.binary, Dir: b.TempDir()})
	check(b, err)
	b.Cleanup(func() {
		if b.Failed() {
			b.Log(m.Tail())
		}
		check(b, m.Stop())
	})
	return m
}

// stop stops the manager and takes its gate away, so that Pods come about as they did before
// anybody installed it.
func (s *scale) stop(b *testing.B, m *operator.Manager) {
	b.Helper()
	check(b, m.Stop())
	name := metav1.ObjectMeta{Name: "countersign"}
	check(b, s.Delete(b.Context(), &admissionv1.MutatingWebhookConfiguration{ObjectMeta: name}))
	check(b, s.Delete(b.Context(), &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: name}))
}

// createPods makes the Pods, and says of each what a kubelet would.
func (s *scale) createPods(b *testing.B) {
	b.Helper()
	var made atomic.Int64
	done, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		ticker := time.NewTicker(3 * time.Second)
		defer ticker.Stop()
		for {
			s.say("%d of %d Pods made", made.Load(), scalePods)
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	}()
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(32)
	for i := range scalePods {
		group.Go(func() error {
			defer made.Add(1)
			return s.createPod(ctx, i)
		})
	}
	err := group.Wait()
	close(done)
	<-told
	check(b, err)
}

// createPod makes one Pod of a usual size: a Deployment's, with a sidecar and some configuration.
func (s *scale) createPod(ctx context.Context, i int) error {
	workload := i % scaleWorkloads
	repository, tag := workload%scaleRepositories, "both"
	switch workload % 20 {
	case 0:
		tag = "unsigned"
	case 1, 2:
		tag = "ci"
	}
	image := scaleRepository(repository) + ":" + tag
	imageID := scaleRepository(repository) + "@sha256:" + scaleHex(repository, tag)
	var env []corev1.EnvVar
	for n := range 30 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", n), Value: strings.Repeat("x", 40)})
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: scaleNamespace(workload % scaleNamespaces),
			Name:      fmt.Sprintf("app-%d-5d4f8c7b9-%d", workload, i),
			Labels: map[string]string{
				"app": fmt.Sprintf("app-%d", workload), "pod-template-hash": "5d4f8c7b9", "team": "acme",
			},
			Annotations: map[string]string{"example.com/configuration": strings.Repeat("y", 1000)},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: fmt.Sprintf("app-%d-5d4f8c7b9", workload),
				UID: types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", workload)), Controller: ptr.To(true),
			}},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{
				{Name: "app", Image: image, Env: env},
				{Name: "sidecar", Image: "registry.example.com/mesh/proxy:v1", Env: env},
			},
		},
	}
	if err := s.Create(ctx, p); err != nil {
		return err
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.0.0.1", HostIP: "10.0.0.2",
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue},
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
		},
		ContainerStatuses: []corev1.ContainerStatus{
			{
				Name: "app", Image: image, ImageID: imageID, ContainerID: "containerd://" + scaleHex(i, "app"),
				Ready: true, State: running,
			},
			{
				Name: "sidecar", Image: "registry.example.com/mesh/proxy:v1",
				ImageID:     "registry.example.com/mesh/proxy@sha256:" + scaleHex(0, "both"),
				ContainerID: "containerd://" + scaleHex(i, "sidecar"), Ready: true, State: running,
			},
		},
	}
	return s.Status().Update(ctx, p)
}

// require edits the policy to require the roles.
func (s *scale) require(b *testing.B, roles ...v1alpha1.RoleName) {
	b.Helper()
	p := &v1alpha1.ImagePolicy{}
	check(b, s.Get(b.Context(), client.ObjectKey{Name: "production"}, p))
	edited := p.DeepCopy()
	edited.Spec.RequiredRoles = nil
	for _, role := range roles {
		edited.Spec.RequiredRoles = append(edited.Spec.RequiredRoles, v1alpha1.RoleRequirement{Role: role})
	}
	check(b, s.Patch(b.Context(), edited, client.MergeFrom(p)))
}

// counts waits until the status of the policy, as it is now, counts exactly this.
func (s *scale) counts(b *testing.B, covered, violating int32) {
	b.Helper()
	want := v1alpha1.WorkloadCounts{Covered: covered, Violating: violating}
	poll.Await(b, fmt.Sprintf("the counts %+v", want), func() error {
		p := &v1alpha1.ImagePolicy{}
		if err := s.Get(b.Context(), client.ObjectKey{Name: "production"}, p); err != nil {
			return err
		}
		if w := p.Status.Workloads; p.Status.ObservedGeneration != p.Generation || w == nil || *w != want {
			return fmt.Errorf("the status of generation %d counts %+v", p.Status.ObservedGeneration, w)
		}
		return nil
	})
}

// say prints what the benchmark is at: it takes more than a few seconds.
func (s *scale) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0fs %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}

func scaleNamespace(i int) string  { return fmt.Sprintf("team-%d", i) }
func scaleRepository(i int) string { return fmt.Sprintf("%s/acme/app-%d", registry, i) }

// scaleHex is a made-up digest of an image.
func scaleHex(i int, tag string) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, i, tag)))
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
