package running

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// testOwner tests that owner verifies the Pod's controller: an object with the same name may be
// another one.
func testOwner(t *testing.T, c client.Client) {
	owned := func(name string, by metav1.OwnerReference) *appsv1.ReplicaSet {
		labels := map[string]string{"app": name}
		by.APIVersion, by.Kind, by.UID, by.Controller = "apps/v1", "Deployment", "deployment", ptr.To(true)
		rs := &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: []metav1.OwnerReference{by}},
			Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](0),
				Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "a"}}},
				}},
		}
		if err := c.Create(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
		return rs
	}
	web := owned("web-abc", metav1.OwnerReference{Name: "web"})
	long := owned("long-abc", metav1.OwnerReference{Name: strings.Repeat("n", 1<<20)})
	of := func(rs *appsv1.ReplicaSet) compliance.Reference {
		return compliance.Reference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: rs.Name, UID: rs.UID}
	}
	earlier, gone, other := of(web), of(web), of(web)
	earlier.UID, gone.Name, other.APIVersion = "an-earlier-one", "web-gone", "evil/v1"
	cases := map[string]struct {
		controller compliance.Reference
		want       string
	}{
		"ReplicaSet of a Deployment": {of(web), "Deployment web deployment"},
		"recreated since":            {earlier, "ReplicaSet web-abc an-earlier-one"},
		"deleted":                    {gone, fmt.Sprint("ReplicaSet web-gone ", web.UID)},
		"of another group":           {other, fmt.Sprint("ReplicaSet web-abc ", web.UID)},
		"with an owner of 1 MiB":     {of(long), fmt.Sprint("ReplicaSet long-abc ", long.UID)},
	}
	r := &Reconciler{Live: c}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := podFound("web", "x bad")
			f.Controller = tc.controller
			got := r.owner(t.Context(), &f)
			if text := fmt.Sprint(got.Kind, " ", got.Name, " ", got.UID); text != tc.want || got.Namespace != "shop" {
				t.Errorf("got owner %.300s in %s, want %s in shop", text, got.Namespace, tc.want)
			}
		})
	}
}

// testEvents writes events about one workload with a real recorder.
func testEvents(t *testing.T, c *controlplane.Plane) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{
		Interface: kubernetes.NewForConfigOrDie(c.Kube.Config).EventsV1(),
	})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	r := &Reconciler{
		Live: c, Status: status.Writer{Events: broadcaster.NewRecorder(clientgoscheme.Scheme, "countersign")},
	}
	var found []compliance.Finding
	for _, image := range []string{"example.com/a@sha256:0123456789", "example.com/a@sha256:abcdefabcd"} {
		f := podFound("announced", image+" bad")
		f.Controller = compliance.Reference{APIVersion: "v1", Kind: "Pod", Name: "announced", UID: "announced"}
		found = append(found, f)
	}
	for i := range found {
		r.announce(t.Context(), []announcement{{finding: &found[i], images: found[i].Images}})
	}
	var notes []string
	poll.Await(t, "both events", func() error {
		list := &eventsv1.EventList{}
		if err := c.List(t.Context(), list, client.InNamespace("shop")); err != nil {
			return err
		}
		notes = nil
		for _, e := range list.Items {
			if e.Regarding.UID == "announced" {
				notes = append(notes, e.Note)
			}
		}
		if len(notes) != len(found) {
			return fmt.Errorf("got %q, want %d notes", notes, len(found))
		}
		return nil
	})
	slices.Sort(notes)
	want := []string{
		`running in breach of ImagePolicy "production": example.com/a@sha256:01234567...: not signed by qa`,
		`running in breach of ImagePolicy "production": example.com/a@sha256:abcdefab...: not signed by qa`,
	}
	if diff := cmp.Diff(want, notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// The text of an event is limited, however long the names of images are.
func TestNotesAreBounded(t *testing.T) {
	recorder := events.NewFakeRecorder(1)
	r := &Reconciler{Status: status.Writer{Events: recorder}}
	images := []string{}
	for i := range 100 {
		images = append(images, fmt.Sprint(i, strings.Repeat("x", 4096), " bad"))
	}
	f := podFound("pod", images...)
	r.announce(t.Context(), []announcement{{finding: &f, images: f.Images}})
	if e := <-recorder.Events; len(e) > 1100 {
		t.Errorf("got an event of %d bytes, want at most 1100", len(e))
	}
}

// An attacker may forge owners that differ only in their API version. They must not cause new
// events in each evaluation, and must not delay the events of others.
func TestThreatForgedOwnersDoNotDrownNews(t *testing.T) {
	l := ledgerOf(nil)
	forged := []compliance.Finding{findingOf("evil/v0", "aaa", "n", "i bad")}
	for i := range 2 * maxAnnounced {
		forged = append(forged, findingOf(fmt.Sprintf("evil%d/v1", i), "aaa", "n"))
	}
	enter := func(minute int64, want []string, found ...compliance.Finding) {
		t.Helper()
		n, waiting := l.enter(&compliance.Result{Findings: found}, time.Unix(1_800_000_000+60*minute, 0))
		if diff := cmp.Diff(want, texts(n)); diff != "" || waiting > 0 {
			t.Errorf("minute %d: got %d waiting, want 0; events (-want +got):\n%s", minute, waiting, diff)
		}
	}
	enter(0, []string{"n: i"}, forged...)
	enter(1, nil, forged...)
	enter(2, []string{"app: i"}, append(slices.Clone(forged), findingOf("apps/v1", "victim", "app", "i bad"))...)
}

// Events beyond the limit of one evaluation are recorded later. Violations come before their ends,
// and the events of one namespace do not delay those of another.
func TestThreatAnnouncementsAreShared(t *testing.T) {
	l := &ledger{}
	var bad, good []compliance.Finding
	for i := range 3 * maxAnnounced {
		name := fmt.Sprintf("pod-%03d", i)
		bad, good = append(bad, findingOf("v1", "crowd", name, "x bad")), append(good, findingOf("v1", "crowd", name))
	}
	seen := map[string]int{}
	enter := func(minute int64, waits int, found ...compliance.Finding) []string {
		t.Helper()
		n, waiting := l.enter(&compliance.Result{Findings: found}, time.Unix(1_800_000_000+60*minute, 0))
		if waiting != waits || len(n) > maxAnnounced {
			t.Errorf("minute %d: got %d events and %d waiting, want at most %d and %d", minute, len(n), waiting,
				maxAnnounced, waits)
		}
		for _, text := range texts(n) {
			seen[text]++
		}
		return texts(n)
	}
	minutes := int64(3 * maxAnnounced / maxPerNamespace)
	for m := range minutes {
		found := slices.Clone(bad)
		if m == 3 {
			found = append(found, findingOf("v1", "victim", "app", "y bad"))
		}
		waits := 3*maxAnnounced - int(m+1)*maxPerNamespace
		if got := enter(m, waits, found...); m == 3 && !slices.Contains(got, "app: y") {
			t.Errorf("the other namespace is not announced: %q", got)
		}
	}
	for i := range bad {
		if text := bad[i].Workload.Name + ": x"; seen[text] != 1 {
			t.Errorf("%s: got %d events, want 1", text, seen[text])
		}
	}
	if got := l.first(bad)[0].Since.Unix(); got != 1_800_000_000 {
		t.Errorf("got since %d, want the time of the first evaluation", got)
	}
	mixed := append(slices.Clone(good), findingOf("v1", "crowd", "new", "z bad"))
	if got := enter(minutes, 3*maxAnnounced+1-maxPerNamespace, mixed...); got[0] != "new: z" {
		t.Errorf("got events %q, want the violation first", got)
	}
	for m := range minutes {
		n, _ := l.enter(&compliance.Result{Findings: mixed}, time.Unix(1_800_001_000+60*m, 0))
		for _, text := range texts(n) {
			seen[text]++
		}
	}
	for i := range bad {
		if text := bad[i].Workload.Name + " cured"; seen[text] != 1 {
			t.Errorf("%s: got %d events, want one", text, seen[text])
		}
	}
}

func TestAnnouncementsInAllAreBounded(t *testing.T) {
	var found []compliance.Finding
	for i := range 4 * maxAnnounced {
		found = append(found, findingOf("v1", fmt.Sprintf("ns-%d", i/4), fmt.Sprint("pod-", i), "x bad"))
	}
	l := &ledger{}
	n, waiting := l.enter(&compliance.Result{Findings: found}, time.Unix(1_800_000_000, 0))
	if len(n) != maxAnnounced || waiting != 3*maxAnnounced {
		t.Errorf("got %d events and %d waiting, want %d and %d", len(n), waiting, maxAnnounced, 3*maxAnnounced)
	}
}

// There is no second event when the kubelet reports the digest of a tag that has an event. Another
// digest of the same tag has an event.
func TestDigestOfATagHasNoSecondEvent(t *testing.T) {
	const y, z = "e.com/app@sha256:yy bad", "e.com/app@sha256:zz bad"
	reported := func(images ...string) compliance.Finding {
		f := findingOf("v1", "shop", "web", images...)
		for i := range f.Images {
			if strings.Contains(f.Images[i].Image, "@") {
				f.Images[i].Tag = "v0"
			}
		}
		return f
	}
	steps := []struct {
		found compliance.Finding
		texts []string
		since []int64
	}{
		{reported("e.com/app:v0 bad"), []string{"web: e.com/app:v0"}, []int64{0}},
		{reported("e.com/app:v0 bad", y), nil, []int64{0, 0}}, // one Pod of two
		{reported(y), nil, []int64{0}},
		{reported("e.com/app:v0 bad", y), nil, []int64{3, 0}}, // a further Pod
		{reported(y, z), []string{"web: e.com/app@sha256:zz"}, []int64{0, 3}},
		{reported("e.com/app:v1 bad", y), []string{"web: e.com/app:v1"}, []int64{5, 0}},
	}
	l := &ledger{}
	for i, s := range steps {
		n, _ := l.enter(&compliance.Result{Findings: []compliance.Finding{s.found}}, time.Unix(int64(i), 0))
		if diff := cmp.Diff(s.texts, texts(n)); diff != "" {
			t.Errorf("step %d: events (-want +got):\n%s", i, diff)
		}
		var since []int64
		for _, v := range l.first([]compliance.Finding{s.found}) {
			since = append(since, v.Since.Unix())
		}
		if diff := cmp.Diff(s.since, since); diff != "" {
			t.Errorf("step %d: since (-want +got):\n%s", i, diff)
		}
	}
	// A new leader knows the tag from the status.
	l = ledgerOf(nil)
	l.known[violation{
		"production", compliance.Workload{Namespace: "shop", Kind: "Pod", Name: "web"}, "e.com/app:v0",
	}] = entry{since: metav1.Unix(7, 0), announced: true}
	f := reported(y)
	n, _ := l.enter(&compliance.Result{Findings: []compliance.Finding{f}}, time.Unix(9, 0))
	if got := l.first([]compliance.Finding{f}); len(n) > 0 || got[0].Since.Unix() != 7 {
		t.Errorf("after another leader: got events %q since %s, want none since %s", texts(n), got[0].Since,
			metav1.Unix(7, 0))
	}
}
