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

// waitTimeout limits each wait for the manager. It is long enough for a busy machine.
const waitTimeout = 5 * time.Minute

// large is a control plane without controllers, with a signing server of n repositories.
type large struct {
	client.Client
	n      int
	kube   *kubeserver.Server
	server *fileServer
	binary string
	begin  time.Time
}

// BenchmarkThousandRepositories runs the manager, built as for a release, with 1,000 repositories
// of 100 tags and 3 delegations, and one running Pod of each. It measures the start without
// records, the memory, a round of refreshes, and the start from records while the signing server is
// down. After each start the manager must admit and pin a Pod.
func BenchmarkThousandRepositories(b *testing.B) {
	for b.Loop() {
		l := newLarge(b, many, 30*time.Second)
		progress(l.begin, "creating a Pod of each repository")
		each(b, l.n, 16, l.run)
		progress(l.begin, "starting the manager without records")
		m := l.start(b)
		b.ReportMetric(l.ready(b, m, "cold").Seconds(), "s/cold-start")
		l.await(b, "every repository", func() error { return l.loaded(b.Context(), m) })
		loaded := age(b, m.PID())
		requests := l.server.requests().all
		progress(l.begin, "every repository is loaded; waiting for the records")
		l.await(b, "the records", func() error { return l.recorded(b.Context()) })
		b.ReportMetric(loaded.Seconds(), "s/load")
		b.ReportMetric(float64(requests)/many, "requests/repository")
		l.polls(b, m)
		resident, peak, err := m.Memory()
		check(b, err)
		b.ReportMetric(resident, "MiB-resident")
		b.ReportMetric(peak, "MiB-peak")
		l.follows(b, m)
		check(b, m.Stop())

		progress(l.begin, "starting the manager from its records, without a signing server")
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

// BenchmarkTenThousandRepositories measures the memory of the manager with 10,000 repositories. A
// Pod of each is created as a dry run, so that none is stored. The manager must admit and pin every
// one.
func BenchmarkTenThousandRepositories(b *testing.B) {
	for b.Loop() {
		l := newLarge(b, 10*many, time.Hour)
		progress(l.begin, "starting the manager without records")
		m := l.start(b)
		progress(l.begin, "creating a Pod of each repository, as a dry run")
		began := time.Now()
		each(b, l.n, 16, l.try)
		l.await(b, "every repository", func() error { return l.loaded(b.Context(), m) })
		b.ReportMetric(time.Since(began).Seconds(), "s/load")
		b.ReportMetric(float64(l.server.requests().all)/float64(l.n), "requests/repository")
		resident, peak, err := m.Memory()
		check(b, err)
		progress(l.begin, "every repository is loaded: %.0f MiB, at its peak %.0f", resident, peak)
		b.ReportMetric(resident, "MiB-resident")
		b.ReportMetric(peak, "MiB-peak")
		check(b, m.Stop())
		l.ungate(b)
	}
	b.ReportMetric(0, "ns/op")
}

// newLarge starts the servers, signs n repositories, and creates a policy that covers them.
func newLarge(b *testing.B, n int, refresh time.Duration) *large {
	b.Helper()
	l := &large{n: n, begin: time.Now()}
	progress(l.begin, "starting the servers, and signing %d repositories", n)
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
	signers, files := published(b, n)
	l.server = newFileServer(b, files)
	check(b, l.Create(b.Context(), &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme-notary"},
		Spec: v1alpha1.TrustRootSpec{
			RefreshInterval: metav1.Duration{Duration: refresh},
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
	return l
}

// run creates a Pod of a repository, with the status of a running one.
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

// try creates a Pod of a repository as a dry run. The API server calls the manager and stores
// nothing.
func (l *large) try(ctx context.Context, i int) error {
	image := repositoryName(i) + ":" + tag(i%tags)
	p := pod(image, i)
	if err := l.Create(ctx, p, client.DryRunAll); err != nil {
		return err
	}
	return pinned(p, image, digestHex(repositoryName(i), i%tags))
}

// pinned returns an error unless the image of a Pod is pinned to the digest.
func pinned(p *corev1.Pod, image, hex string) error {
	if got, want := p.Spec.Containers[0].Image, image+"@sha256:"+hex; got != want {
		return fmt.Errorf("got a Pod with image %s, want %s", got, want)
	}
	return nil
}

// ready returns the age of a manager that has just become ready. It also creates a Pod, which the
// manager must pin.
func (l *large) ready(b *testing.B, m *operator.Manager, name string) time.Duration {
	b.Helper()
	took := age(b, m.PID())
	progress(l.begin, "ready after %.2f s", took.Seconds())
	image := repositoryName(7) + ":" + tag(7)
	p := pod(image, 0)
	p.Name = name
	check(b, l.Create(b.Context(), p))
	check(b, pinned(p, image, digestHex(repositoryName(7), 7)))
	return took
}

// polls measures one round of refreshes. It may begin with any repository: it ends after as many
// refreshes as there are repositories.
func (l *large) polls(b *testing.B, m *operator.Manager) {
	b.Helper()
	progress(l.begin, "waiting for a round of refreshes")
	l.spends(b, m, "refresh-round", func(since, now requests) bool { return now.timestamps >= since.timestamps+l.n })
}

// follows measures one interval in which the manager reads the change feed, from one read to the
// next. Each repository is refreshed once after the feed appears. The manager still polls each
// repository now and then, but not before ten more intervals.
func (l *large) follows(b *testing.B, m *operator.Manager) {
	b.Helper()
	before := l.server.requests()
	l.server.offerFeed()
	// The manager looks for a missing feed again within an hour, and at once when the TrustRoot is
	// edited.
	var tr v1alpha1.TrustRoot
	check(b, l.Get(b.Context(), client.ObjectKey{Name: "acme-notary"}, &tr))
	tr.Spec.RefreshInterval.Duration += time.Second
	check(b, l.Update(b.Context(), &tr))
	progress(l.begin, "waiting until the manager reads the change feed, and for one more interval")
	l.await(b, "the change feed", func() error {
		now := l.server.requests()
		if now.feed < 2 || now.timestamps < before.timestamps+l.n {
			return fmt.Errorf("since there is a feed, got %d requests for it and %d for timestamps", now.feed,
				now.timestamps-before.timestamps)
		}
		return nil
	})
	l.spends(b, m, "feed-interval", func(since, now requests) bool { return now.feed > since.feed })
}

// spends reports the requests and the processor time of the manager until over returns true.
func (l *large) spends(b *testing.B, m *operator.Manager, unit string, over func(since, now requests) bool) {
	b.Helper()
	begin, since, used := time.Now(), l.server.requests(), usedTime(b, m.PID())
	l.await(b, unit, func() error {
		if now := l.server.requests(); !over(since, now) {
			return fmt.Errorf("got %+v requests so far, %+v of them before", now, since)
		}
		return nil
	})
	used = usedTime(b, m.PID()) - used
	sent := l.server.requests().all - since.all
	b.ReportMetric(float64(sent), "requests/"+unit)
	b.ReportMetric(used.Seconds(), "cpu-s/"+unit)
	progress(l.begin, "%s: %d requests and %.2f s of processor time, in %.0f s", unit, sent, used.Seconds(),
		time.Since(begin).Seconds())
}

// loaded returns nil once the metrics say that the manager has fetched and verified every
// repository.
func (l *large) loaded(ctx context.Context, m *operator.Manager) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.MetricsURL, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if want := fmt.Sprintf(
		`countersign_verification_duration_seconds_count{format="Notary",result="ok",stage="first"} %d`+"\n",
		l.n); err == nil && !strings.Contains(string(text), want) {
		err = fmt.Errorf("got metrics without %s:\n%s", want, text)
	}
	return err
}

// recorded returns nil once there is a record of every repository.
func (l *large) recorded(ctx context.Context) error {
	heads := &metav1.PartialObjectMetadataList{}
	heads.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	err := l.List(ctx, heads, client.InNamespace(operator.Namespace),
		client.MatchingLabels{recordmap.LabelKind: recordmap.KindHead})
	if err == nil && len(heads.Items) != l.n {
		err = fmt.Errorf("got %d records, want %d", len(heads.Items), l.n)
	}
	return err
}

// ungate deletes the webhook configurations, so that the next start waits until the manager has
// created them again.
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
	for deadline := time.Now().Add(waitTimeout); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("timed out waiting for %s: %v", what, err)
		}
	}
}
