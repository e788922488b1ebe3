package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/recordmap"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
)

// patience bounds each wait of BenchmarkThousandRepositories, on a machine however busy.
const patience = 5 * time.Minute

// large is a control plane without controllers, on which one Pod of each of 1,000 repositories
// runs.
type large struct {
	client.Client
	kube   *kubeserver.Server
	server *fileServer
	binary string
	begin  time.Time
}

// BenchmarkThousandRepositories runs the manager, built as it is released, over 1,000 repositories
// of 100 tags and 3 delegations: its start when it knows nothing of them, its memory, a round of
// refreshes, and its start from what it has written down with the signing server gone. Each time a
// Pod must be admitted and pinned.
func BenchmarkThousandRepositories(b *testing.B) {
	for b.Loop() {
		l := newLarge(b)
		say(l.begin, "starting the manager, which knows nothing yet")
		m := l.start(b)
		b.ReportMetric(l.ready(b, m, "cold").Seconds(), "s/cold-start")
		l.await(b, "every repository", func() error { return l.loaded(b.Context(), m, many) })
		loaded := age(b, m.PID())
		requests := l.server.asked().all
		say(l.begin, "all is loaded; waiting until it is written down")
		l.await(b, "the records", func() error { return l.recorded(b.Context(), many) })
		b.ReportMetric(loaded.Seconds(), "s/load")
		b.ReportMetric(float64(requests)/many, "requests/repository")
		l.polls(b, m)
		resident, peak, err := m.Memory()
		check(b, err)
		b.ReportMetric(resident, "MiB-resident")
		b.ReportMetric(peak, "MiB-peak")
		l.follows(b, m)
		check(b, m.Stop())

		say(l.begin, "starting the manager from its records, without a signing server")
		l.server.stop()
		l.ungate(b)
		m = l.start(b)
		b.ReportMetric(l.ready(b, m, "records").Seconds(), "s/start-from-records")
		resident, peak, err = m.Memory()
		check(b, err)
		b.ReportMetric(resident, "MiB-resident-from-records")
		b.ReportMetric(peak, "MiB-peak-from-records")
		check(b, m.Stop())
		l.ungate(b)
	}
	b.ReportMetric(0, "ns/op")
}

func newLarge(b *testing.B) *large {
	b.Helper()
	l := &large{begin: time.Now()}
	say(l.begin, "starting the servers, and signing %d repositories", many)
	l.kube = kubeserver.Run(b, kubeserver.Options{})
	scheme := runtime.NewScheme()
	check(b, clientgoscheme.AddToScheme(scheme))
	check(b, v1alpha1.AddToScheme(scheme))
	config := rest.CopyConfig(l.kube.Config)
	config.QPS = -1
	var err error
	l.Client, err = client.New(config, client.Options{Scheme: scheme})
	check(b, err)
	l.binary, err = operator.Build(b.Context(), b.TempDir(), false)
	check(b, err)
	signers, files := published(b, many)
	l.server = newFileServer(b, files)
	check(b, l.Create(b.Context(), &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme-notary"},
		Spec: v1alpha1.TrustRootSpec{
			RefreshInterval: metav1.Duration{Duration: 30 * time.Second},
			Notary: &v1alpha1.NotarySpec{
				Server: l.server.url, CABundle: v1alpha1.PEMBundle(l.server.ca),
				Root: v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(signers.Root.Canonical)}},
			},
		},
	}))
	check(b, l.Create(b.Context(), &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "production"},
		Spec: v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{host + "/**"}, TrustRoots: []v1alpha1.ObjectName{"acme-notary"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
		},
	}))
	check(b,
		l.Create(b.Context(), &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"env": "production"}},
		}))
	say(l.begin, "creating a Pod of each")
	each(b, many, 16, l.run)
	return l
}

// run makes the Pod of a repository, as one that runs.
func (l *large) run(ctx context.Context, i int) error {
	name := repositoryName(i)
	p := pod(name+":"+tag(0), i)
	if err := l.Create(ctx, p); err != nil {
		return err
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
		Name: "app", Image: name + ":" + tag(0), ImageID: name + "@sha256:" + digestHex(name, 0),
		ContainerID: "containerd://" + digestHex("container", i), Ready: true,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}}
	return l.Status().Update(ctx, p)
}

func (l *large) start(b *testing.B) *operator.Manager {
	b.Helper()
	m, err := operator.Start(b.Context(), l.kube, operator.Options{Binary: l.binary, Dir: b.TempDir()})
	check(b, err)
	b.Cleanup(func() {
		if b.Failed() {
			b.Log(m.Tail())
		}
		check(b, m.Stop())
	})
	return m
}

// ready returns how long ago a manager that has just become ready was started, and has it decide on
// a Pod.
func (l *large) ready(b *testing.B, m *operator.Manager, name string) time.Duration {
	b.Helper()
	took := age(b, m.PID())
	say(l.begin, "ready after %.2f s", took.Seconds())
	image := repositoryName(7) + ":" + tag(7)
	p := pod(image, 0)
	p.Name = name
	check(b, l.Create(b.Context(), p))
	if want := image + "@sha256:" + digestHex(repositoryName(7), 7); p.Spec.Containers[0].Image != want {
		b.Fatalf("the Pod was created with image %s, want %s", p.Spec.Containers[0].Image, want)
	}
	return took
}

// polls measures one round of refreshes: as many as there are repositories, from any moment on.
func (l *large) polls(b *testing.B, m *operator.Manager) {
	b.Helper()
	say(l.begin, "waiting for a round of refreshes")
	l.spends(b, m, "refresh-round", func(since, now asked) bool { return now.timestamps >= since.timestamps+many })
}

// follows measures one interval in which the manager goes by the change feed, from one reading of
// it to the next. Every repository was refreshed once since the feed was there, and the first that
// is polled in spite of it is due after ten intervals and more.
func (l *large) follows(b *testing.B, m *operator.Manager) {
	b.Helper()
	before := l.server.asked()
	l.server.offerFeed()
	// A server that had no feed is asked for one again within an hour, and at once when its trust
	// root is edited.
	var tr v1alpha1.TrustRoot
	check(b, l.Get(b.Context(), client.ObjectKey{Name: "acme-notary"}, &tr))
	tr.Spec.RefreshInterval.Duration += time.Second
	check(b, l.Update(b.Context(), &tr))
	say(l.begin, "waiting until the manager goes by the change feed, and for an interval after that")
	l.await(b, "the change feed", func() error {
		now := l.server.asked()
		if now.feed < 2 || now.timestamps < before.timestamps+many {
			return fmt.Errorf("since there is a feed it was asked for %d times, and timestamps %d times", now.feed,
				now.timestamps-before.timestamps)
		}
		return nil
	})
	l.spends(b, m, "feed-interval", func(since, now asked) bool { return now.feed > since.feed })
}

// spends reports the requests and the processor time of the manager until over.
func (l *large) spends(b *testing.B, m *operator.Manager, unit string, over func(since, now asked) bool) {
	b.Helper()
	begin, since, used := time.Now(), l.server.asked(), usedTime(b, m.PID())
	l.await(b, unit, func() error {
		if now := l.server.asked(); !over(since, now) {
			return fmt.Errorf("%+v requests so far, and %+v before", now, since)
		}
		return nil
	})
	used = usedTime(b, m.PID()) - used
	requests := l.server.asked().all - since.all
	b.ReportMetric(float64(requests), "requests/"+unit)
	b.ReportMetric(used.Seconds(), "cpu-s/"+unit)
	say(l.begin, "%s: %d requests and %.2f s of processor time, in %.0f s", unit, requests, used.Seconds(),
		time.Since(begin).Seconds())
}

// loaded returns nil once the manager says that it has fetched and verified so many repositories.
func (l *large) loaded(ctx context.Context, m *operator.Manager, n int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.MetricsURL, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if want := fmt.Sprintf(
		`countersign_verification_duration_seconds_count{format="Notary",result="ok",stage="first"} %d`+"\n",
		n); err == nil && !strings.Contains(string(text), want) {
		err = fmt.Errorf("no %s in its metrics:\n%s", want, text)
	}
	return err
}

// recorded returns nil once so many repositories are written down.
func (l *large) recorded(ctx context.Context, n int) error {
	heads := &metav1.PartialObjectMetadataList{}
	heads.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	err := l.List(ctx, heads, client.InNamespace(operator.Namespace),
		client.MatchingLabels{recordmap.LabelKind: recordmap.KindHead})
	if err == nil && len(heads.Items) != n {
		err = fmt.Errorf("%d of %d repositories are written down", len(heads.Items), n)
	}
	return err
}

// ungate takes the webhooks away, so that the next start is waited for until it has put them back.
func (l *large) ungate(b *testing.B) {
	b.Helper()
	name := metav1.ObjectMeta{Name: "countersign"}
	check(b, l.Delete(b.Context(), &admissionv1.MutatingWebhookConfiguration{ObjectMeta: name}))
	check(b, l.Delete(b.Context(), &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: name}))
}

// await polls until ok returns nil.
func (l *large) await(b *testing.B, what string, ok func() error) {
	b.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("timed out waiting for %s: %v", what, err)
		}
	}
}
