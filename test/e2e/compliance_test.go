package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const (
	// audited is a namespace with a policy in mode Audit: nothing is denied or pinned.
	audited    = "audited"
	beforehand = registry + "/acme/beforehand:v1"
)

// TestCompliance checks that the status of policies reports violations of running workloads. Its
// subtests run in order, and the later ones stop servers.
func TestCompliance(t *testing.T) {
	t.Parallel()
	var rollout *appsv1.Deployment
	b := newBedAfter(t, func(b *bed) { rollout = b.beforeTheOperator(t) })
	b.namespaceFor(t, audited, map[string]string{"env": audited})
	p := b.policy("audited", registry+"/acme/**", "acme-notary", "ci", "qa")
	p.Spec.NamespaceSelector.MatchLabels = map[string]v1alpha1.LabelValue{"env": audited}
	p.Spec.Mode = v1alpha1.ModeAudit
	b.create(t, p)
	t.Run("older than the operator", func(t *testing.T) { b.testThereBefore(t, rollout) })
	t.Run("running digest", b.testDigestThatRuns)
	t.Run("signature withdrawn", b.testRunningWithdrawn)
	t.Run("key revoked", b.testRunningRevoked)
	t.Run("policies and namespaces", b.testPoliciesAndNamespaces)
	t.Run("break-glass listed", b.testBreakGlassListed)
	t.Run("operator restarted", b.testRestartKeepsSince)
	t.Run("operator restarted without its server", b.testRestartWithoutServer)
}

// beforeTheOperator creates workloads before the operator and any policy.
func (b *bed) beforeTheOperator(t *testing.T) *appsv1.Deployment {
	t.Helper()
	b.create(t, running(production, "alone", beforehand))
	done := running(production, "done", beforehand)
	b.create(t, done)
	done.Status.Phase = corev1.PodSucceeded
	must(t, b.Status().Update(t.Context(), done))
	b.serviceAccount(t, "kube-system")
	b.create(t, running("kube-system", "system", beforehand))
	d := workloads(beforehand)["Deployment"].(*appsv1.Deployment)
	two := int32(2)
	d.GenerateName, d.Name, d.Spec.Replicas = "", "rollout", &two
	b.create(t, d)
	poll.Await(t, "the Deployment's Pods", func() error {
		pods := &corev1.PodList{}
		if err := b.List(t.Context(), pods, client.InNamespace(production),
			client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
			return err
		}
		if len(pods.Items) != 2 {
			return fmt.Errorf("got %d Pods, want 2", len(pods.Items))
		}
		return nil
	})
	return d
}

// running returns a Pod with a name.
func running(namespace, name, image string) *corev1.Pod {
	p := pod(namespace, image)
	p.GenerateName, p.Name = "", name
	return p
}

// found waits until the status of a policy has the wanted counts and condition Compliant, and
// returns the policy.
func (b *bed) found(t *testing.T, policy string, want v1alpha1.WorkloadCounts, status metav1.ConditionStatus,
	reason string) *v1alpha1.ImagePolicy {
	t.Helper()
	p := &v1alpha1.ImagePolicy{}
	poll.Await(t, fmt.Sprintf("the counts of %s", policy), func() error {
		if err := b.Get(t.Context(), client.ObjectKey{Name: policy}, p); err != nil {
			return err
		}
		if p.Spec.Mode != v1alpha1.ModeEnforce {
			want.WouldDeny = want.Violating + want.Unchecked
		}
		if p.Status.Workloads == nil || *p.Status.Workloads != want {
			return fmt.Errorf("got %+v, want %+v; violations %+v", p.Status.Workloads, want, p.Status.Violations)
		}
		return nil
	})
	t.Log(b.condition(t, p, policy, v1alpha1.ConditionCompliant, status, reason))
	return p
}

// violations returns the violations in a policy's status as "kind name image missing-roles".
func violations(p *v1alpha1.ImagePolicy) []string {
	var all []string
	for _, v := range p.Status.Violations {
		all = append(all, strings.Join([]string{v.Kind, v.Name, v.Image, strings.Join(v.MissingRoles, ",")}, " "))
	}
	return all
}

// eventNotes returns the notes of the events of a type about an object and a policy.
func (b *bed) eventNotes(t *testing.T, uid types.UID, kind, policy string) ([]string, error) {
	t.Helper()
	found, err := b.events(t.Context(), func(e *eventsv1.Event) bool {
		return e.Regarding.UID == uid && e.Type == kind && e.Related != nil && e.Related.Name == policy
	})
	var notes []string
	for _, e := range found {
		if e.Series != nil {
			notes = append(notes, fmt.Sprintf("a series of %d", e.Series.Count))
		}
		notes = append(notes, e.Note)
	}
	return notes, err
}

// oneEvent waits for the one event about an object and a policy. Its note must contain all texts.
func (b *bed) oneEvent(t *testing.T, uid types.UID, kind, policy string, texts ...string) {
	t.Helper()
	var notes []string
	poll.Await(t, "the event", func() error {
		var err error
		if notes, err = b.eventNotes(t, uid, kind, policy); err == nil && len(notes) == 0 {
			err = errors.New("got no event")
		}
		return err
	})
	if len(notes) != 1 {
		t.Errorf("got events %q, want one", notes)
	}
	for _, text := range texts {
		if !strings.Contains(notes[0], text) {
			t.Errorf("got note %q, want it to contain %q", notes[0], text)
		}
	}
}

// onePolicyEvent waits for the one event that reports the violations of a policy.
func (b *bed) onePolicyEvent(t *testing.T, policy string) {
	t.Helper()
	var notes []string
	poll.Await(t, "the event on the policy", func() error {
		found, err := b.events(t.Context(), func(e *eventsv1.Event) bool {
			return e.Regarding.Kind == "ImagePolicy" && e.Regarding.Name == policy &&
				e.Reason == v1alpha1.ReasonViolations
		})
		notes = nil
		for _, e := range found {
			notes = append(notes, fmt.Sprint(e.Type, " ", e.Series == nil, " ", e.Note))
		}
		if err == nil && len(notes) == 0 {
			err = errors.New("got no event")
		}
		return err
	})
	if len(notes) != 1 || !strings.HasPrefix(notes[0], "Warning true 2 of 2 running workloads violate the policy") {
		t.Errorf("got events %q, want one warning about 2 of 2 workloads, without a series", notes)
	}
}

func (b *bed) testThereBefore(t *testing.T, rollout *appsv1.Deployment) {
	p := b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 2, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	want := []string{"Deployment rollout " + beforehand + " ci,qa", "Pod alone " + beforehand + " ci,qa"}
	if diff := cmp.Diff(want, violations(p)); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
	for _, v := range p.Status.Violations {
		if v.Namespace != production || v.Reason != v1alpha1.ReasonNotSigned || v.Since.Before(&p.CreationTimestamp) ||
			v.Since.After(time.Now()) {
			t.Errorf("got violation %+v, want one since the policy was created at %s", v, p.CreationTimestamp)
		}
	}
	b.oneEvent(t, rollout.UID, corev1.EventTypeWarning, "production", beforehand, "not signed by ci, qa")
	b.oneEvent(t, b.podUID(t, production, "alone"), corev1.EventTypeWarning, "production", beforehand)
	b.onePolicyEvent(t, "production")
	out, err := b.kube.RunKubectl(t.Context(), "", "get", "imagepolicies.countersign.dev", "production")
	must(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	header, row := strings.Fields(lines[0]), strings.Fields(lines[len(lines)-1])
	if want := []string{"NAME", "MODE", "ROLES", "READY", "COVERED", "VIOLATIONS", "AGE"}; !slices.Equal(header, want) {
		t.Errorf("got columns %q, want %q", header, want)
	}
	if len(row) < 6 || row[4] != "2" || row[5] != "2" {
		t.Errorf("got kubectl output\n%s\nwant 2 covered and 2 violations", out)
	}
	out, err = b.kube.RunKubectl(t.Context(), "", "describe", "deployment", "-n", production, "rollout")
	must(t, err)
	if !strings.Contains(out, `in breach of ImagePolicy "production"`) {
		t.Errorf("got kubectl output\n%s\nwant the event in it", out)
	}
}

// edit changes an object with a merge patch, which cannot conflict with other writers.
func (b *bed) edit(t *testing.T, o client.Object, change func()) {
	t.Helper()
	was, _ := o.DeepCopyObject().(client.Object)
	change()
	must(t, b.Patch(t.Context(), o, client.MergeFrom(was)))
}

func (b *bed) podUID(t *testing.T, namespace, name string) types.UID {
	t.Helper()
	p := &corev1.Pod{}
	must(t, b.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, p))
	return p.UID
}

// pulled sets the status of a Pod as a kubelet does: the image ID of its one container.
func (b *bed) pulled(t *testing.T, p *corev1.Pod, imageID string) {
	t.Helper()
	was := p.DeepCopy()
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "app", Image: p.Spec.Containers[0].Image, ImageID: imageID},
	}
	must(t, b.Status().Patch(t.Context(), p, client.MergeFrom(was)))
}

// testDigestThatRuns reports, as a kubelet, digests that differ from the digest of the tag.
func (b *bed) testDigestThatRuns(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	v1, unsigned := b.sign(t, gun, "v1", 1, "ci", "qa"), "sha256:"+strings.Repeat("7", 64)
	tagged, odd := running(audited, "tagged", gun+":v1"), running(audited, "odd", gun+":v2")
	b.create(t, tagged)
	b.create(t, odd)
	check := func(what string, violating int32, want ...string) {
		t.Helper()
		status, reason := metav1.ConditionFalse, v1alpha1.ReasonViolations
		if violating == 0 {
			status, reason = metav1.ConditionTrue, v1alpha1.ReasonAllSigned
		}
		p := b.found(t, "audited", v1alpha1.WorkloadCounts{Covered: 2, Violating: violating}, status, reason)
		if diff := cmp.Diff(want, violations(p)); diff != "" {
			t.Errorf("%s: violations (-want +got):\n%s", what, diff)
		}
	}
	check("before the kubelet reports", 1, "Pod odd "+gun+":v2 ci,qa")
	b.pulled(t, odd, "docker-pullable://mirror.example.com/other@"+v1)
	check("an image ID of another repository", 1, "Pod odd "+gun+":v2 ci,qa")
	b.pulled(t, odd, "docker-pullable://"+gun+"@"+v1)
	check("an unsigned tag that was pulled as a signed digest", 0)
	b.oneEvent(t, odd.UID, corev1.EventTypeWarning, "audited", gun+":v2", "ci, qa")
	b.oneEvent(t, odd.UID, corev1.EventTypeNormal, "audited", `ImagePolicy "audited"`)
	b.pulled(t, tagged, gun+"@"+unsigned)
	check("a signed tag that was pulled as an unsigned digest", 1, "Pod tagged "+gun+"@"+unsigned+" ci,qa")
	b.pulled(t, tagged, "docker://"+unsigned)
	check("the hash of a configuration", 0)
	b.sign(t, gun, "release", 1, "ci", "qa")
	b.sign(t, gun, "v1", 2, "ci", "qa")
	b.fetchNow(t, gun)
	b.pulled(t, tagged, gun+"@"+unsigned)
	check("an unsigned digest once more", 1, "Pod tagged "+gun+"@"+unsigned+" ci,qa")
	b.pulled(t, tagged, gun+"@"+v1)
	check("a digest that has another tag now", 0)
	must(t, b.Delete(t.Context(), odd))
	must(t, b.Delete(t.Context(), tagged))
	b.found(t, "audited", v1alpha1.WorkloadCounts{}, metav1.ConditionTrue, v1alpha1.ReasonNothingRuns)
}

// testRunningWithdrawn removes qa's signature of a running image from the server.
func (b *bed) testRunningWithdrawn(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	p := running(production, "withdrawn", gun+":v1")
	b.admitted(t, p)
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	must(t, b.signer.Remove(t.Context(), gun, "v1", "targets/qa"))
	withdrawn := time.Now()
	found := b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 3}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	// A refresh takes at most 30 s on an idle machine. The second one comes after 48 s at the
	// earliest.
	if took := time.Since(withdrawn); took > 45*time.Second {
		t.Errorf("the violation was reported after %s, want it after one refresh", took)
	}
	if want := "Pod withdrawn " + gun + "@" + digest + " qa"; !slices.Contains(violations(found), want) {
		t.Errorf("got violations %q, want %q among them", violations(found), want)
	}
	b.oneEvent(t, p.UID, corev1.EventTypeWarning, "production", gun, "not signed by qa")
	must(t, b.Delete(t.Context(), p))
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 2, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
}

// testRunningRevoked revokes the key of qa, and then removes it from the revoked keys again.
func (b *bed) testRunningRevoked(t *testing.T) {
	b.images++
	gun := fmt.Sprintf("%s/acme/app-%d", registry, b.images)
	keys, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	b.sign(t, gun, "v1", 1, "ci", "qa")
	p := running(production, "revoked", gun+":v1")
	b.admitted(t, p)
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	revoke := func(ids ...v1alpha1.KeyID) {
		b.editRoot(t, func(root *v1alpha1.TrustRoot) { root.Spec.RevokedKeys = ids })
	}
	revoke(v1alpha1.KeyID(keys["qa"].KeyID))
	revoked := time.Now()
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 3}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	if took := time.Since(revoked); took > soon {
		t.Errorf("the violation was reported after %s, want at most %s", took, soon)
	}
	revoke()
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	must(t, b.Delete(t.Context(), p))
}

// testPoliciesAndNamespaces edits labels of namespaces, and policies. The counts must follow.
func (b *bed) testPoliciesAndNamespaces(t *testing.T) {
	b.namespaceFor(t, "unlabelled", nil)
	b.create(t, running("unlabelled", "p", beforehand))
	two := v1alpha1.WorkloadCounts{Covered: 2, Violating: 2}
	b.found(t, "production", two, metav1.ConditionFalse, v1alpha1.ReasonViolations)
	b.label(t, "unlabelled", "production")
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 3}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	b.label(t, "unlabelled", "")
	b.found(t, "production", two, metav1.ConditionFalse, v1alpha1.ReasonViolations)

	warn := b.policy("warning", registry+"/acme/**", "acme-notary", "ci")
	warn.Spec.Mode = v1alpha1.ModeWarn
	b.create(t, warn)
	p := b.found(t, "warning", two, metav1.ConditionFalse, v1alpha1.ReasonViolations)
	if got := p.Status.Violations[0].MissingRoles; !slices.Equal(got, []string{"ci"}) {
		t.Errorf("got missing roles %q, want [ci], as this policy requires", got)
	}
	b.edit(t, p, func() { p.Spec.RequiredRoles, p.Spec.AllowUnsigned = nil, new(true) })
	b.found(t, "warning", v1alpha1.WorkloadCounts{Covered: 2}, metav1.ConditionTrue, v1alpha1.ReasonAllSigned)
	b.edit(t, p, func() { p.Spec.Images = []v1alpha1.ImagePattern{"docker.io/**"} })
	b.found(t, "warning", v1alpha1.WorkloadCounts{}, metav1.ConditionTrue, v1alpha1.ReasonNothingRuns)
	must(t, b.Delete(t.Context(), p))
	b.create(t, b.policy("warning", registry+"/acme/**", "nowhere", "ci"))
	b.found(t, "warning", v1alpha1.WorkloadCounts{Covered: 2, Unchecked: 2}, metav1.ConditionUnknown,
		v1alpha1.ReasonNotAllChecked)
	must(t, b.Delete(t.Context(), p))
}

// testBreakGlassListed uses break-glass in a namespace. The policy's status must list it.
func (b *bed) testBreakGlassListed(t *testing.T) {
	b.namespaceFor(t, "open", map[string]string{"env": "production", v1alpha1.LabelBreakGlass: "incident-4711"})
	b.admitted(t, running("open", "let-in", beforehand))
	p := b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 3, Violating: 3}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	want := []v1alpha1.BreakGlass{{Namespace: "open", Reason: "incident-4711"}}
	if diff := cmp.Diff(want, p.Status.BreakGlass); diff != "" {
		t.Errorf("break-glass (-want +got):\n%s", diff)
	}
	b.denied(t, running(production, "not-here", beforehand), http.StatusForbidden, "qa")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "open"}}
	b.update(t, ns, func() { delete(ns.Labels, v1alpha1.LabelBreakGlass) })
	poll.Await(t, "a status without break-glass", func() error {
		if err := b.Get(t.Context(), client.ObjectKey{Name: "production"}, p); err != nil {
			return err
		}
		if len(p.Status.BreakGlass) > 0 {
			return fmt.Errorf("got %v, want none", p.Status.BreakGlass)
		}
		return nil
	})
}

// testRestartKeepsSince restarts the operator. It must keep the times of the violations, and repeat
// no event.
func (b *bed) testRestartKeepsSince(t *testing.T) {
	before := &v1alpha1.ImagePolicy{}
	must(t, b.Get(t.Context(), client.ObjectKey{Name: "production"}, before))
	must(t, b.manager.Stop())
	must(t, b.Delete(t.Context(), running("open", "let-in", beforehand)))
	b.manager = operator.Run(t, b.kube)
	p := b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 2, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	var kept []v1alpha1.Violation
	for _, v := range before.Status.Violations {
		if v.Namespace == production {
			kept = append(kept, v)
		}
	}
	if diff := cmp.Diff(kept, p.Status.Violations); diff != "" {
		t.Errorf("violations (-before +after):\n%s", diff)
	}
	b.oneEvent(t, b.podUID(t, production, "alone"), corev1.EventTypeWarning, "production", beforehand)
	b.onePolicyEvent(t, "production")
}

// testRestartWithoutServer starts an operator while the signing server is down. It must report
// workloads that it cannot check, and no violations.
func (b *bed) testRestartWithoutServer(t *testing.T) {
	must(t, b.manager.Stop())
	b.notary.Disconnect()
	b.manager = operator.Run(t, b.kube)
	p := b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 2, Unchecked: 2}, metav1.ConditionUnknown,
		v1alpha1.ReasonNotAllChecked)
	if len(p.Status.Violations) > 0 {
		t.Errorf("got violations %v, want none", p.Status.Violations)
	}
	must(t, b.notary.Reconnect())
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 2, Violating: 2}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	b.oneEvent(t, b.podUID(t, production, "alone"), corev1.EventTypeWarning, "production", beforehand)
}
