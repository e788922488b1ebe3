package e2e

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestReports runs the manager on a cluster in which the CRDs of reports are installed and deleted.
func TestReports(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	audit := b.policy("release", registry+"/acme/**", "acme-notary", "release")
	audit.Spec.Mode = v1alpha1.ModeAudit
	b.create(t, audit)
	b.create(t, b.policy("orphan", registry+"/orphan/**", "not-there", "ci"))
	signed, unsigned, orphan := pod(production, gun+":v1"), pod("sandbox", gun+":v2"), pod("sandbox",
		registry+"/orphan/app:v1")
	b.admitted(t, signed)
	b.admitted(t, unsigned)
	b.admitted(t, orphan)
	b.label(t, "sandbox", "production")
	b.counts(t, "production", 2, 1)

	b.noErrorsLogged(t)
	uninstall := kubeserver.RunReportCRDs(t, b.kube)
	b.reports(t, map[string][]string{
		production: {"pass production " + signed.Name, "warn release " + signed.Name},
		"sandbox": {
			"error orphan " + orphan.Name, "fail production " + unsigned.Name, "warn release " + unsigned.Name,
		},
	})
	t.Run("as dashboards and kubectl show them", func(t *testing.T) {
		for _, resource := range []string{"policyreports.wgpolicyk8s.io", "reports.openreports.io"} {
			out, err := b.kube.RunKubectl(t.Context(), "", "get", resource, "-A")
			must(t, err)
			t.Log("kubectl get " + resource + " -A\n" + out)
			for _, row := range []string{
				`NAMESPACE +NAME .*PASS +FAIL +WARN +ERROR +SKIP `, production + ` +countersign +1 +0 +1 +0 +0 `,
				`sandbox +countersign +0 +1 +1 +1 +0 `,
			} {
				if !regexp.MustCompile(row).MatchString(out) {
					t.Errorf("got\n%s\nwant a row that matches %q", out, row)
				}
			}
		}
		out, err := b.kube.RunKubectl(t.Context(), "", "get", "policyreport", "countersign", "-n", "sandbox", "-o",
			"json")
		must(t, err)
		t.Log(out)
		for _, text := range []string{
			`"app.kubernetes.io/managed-by": "countersign"`, `"source": "countersign"`, `"missingRoles": "ci,qa"`,
			"could not be checked: TrustRootNotFound",
		} {
			if !strings.Contains(out, text) {
				t.Errorf("got report\n%s\nwant %q in it", out, text)
			}
		}
	})
	t.Run("an edit of a policy restores deleted reports", func(t *testing.T) {
		for _, kind := range reportKinds() {
			must(t, b.Delete(t.Context(), reportIn("sandbox", kind)))
		}
		b.update(t, audit, func() { audit.Spec.Mode = v1alpha1.ModeEnforce })
		b.reports(t, map[string][]string{
			production: {"pass production " + signed.Name, "fail release " + signed.Name},
			"sandbox": {
				"error orphan " + orphan.Name, "fail production " + unsigned.Name, "fail release " + unsigned.Name,
			},
		})
	})
	t.Run("a namespace without workloads has no report", func(t *testing.T) {
		must(t, b.Delete(t.Context(), signed))
		b.reports(t, map[string][]string{
			"sandbox": {
				"error orphan " + orphan.Name, "fail production " + unsigned.Name, "fail release " + unsigned.Name,
			},
		})
	})
	t.Run("a namespace is deleted", func(t *testing.T) {
		must(t, b.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sandbox"}}))
		b.counts(t, "production", 0, 0)
		b.reports(t, map[string][]string{})
	})
	t.Run("the CRDs are deleted", func(t *testing.T) {
		uninstall()
		must(t, b.Delete(t.Context(), audit))
		b.awaitAdmitted(t, "the end of the deleted policy", production, gun+":v1")
		b.create(t, pod(production, gun+":v1"))
		b.counts(t, "production", 1, 0)
	})
	b.noErrorsLogged(t)
}

// label sets the label env of a namespace, which policies select by.
func (b *bed) label(t *testing.T, namespace, env string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	b.update(t, ns, func() { ns.Labels["env"] = env })
}

// counts waits until the status of a policy has the wanted counts of workloads.
func (b *bed) counts(t *testing.T, policy string, covered, violating int32) {
	t.Helper()
	poll.Await(t, "the counts of "+policy, func() error {
		p := &v1alpha1.ImagePolicy{}
		if err := b.Get(t.Context(), client.ObjectKey{Name: policy}, p); err != nil {
			return err
		}
		if w := p.Status.Workloads; w == nil || w.Covered != covered || w.Violating != violating {
			return fmt.Errorf("got %+v, want %d covered and %d violating", w, covered, violating)
		}
		return nil
	})
}

// noErrorsLogged checks that the manager has logged no error.
func (b *bed) noErrorsLogged(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(b.manager.Log())
	must(t, err)
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, `"level":"error"`) {
			t.Errorf("got log line %s, want no error", line)
		}
	}
}

func reportKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Group: "wgpolicyk8s.io", Version: "v1alpha2", Kind: "PolicyReport"},
		{Group: "openreports.io", Version: "v1alpha1", Kind: "Report"},
	}
}

func reportIn(namespace string, kind schema.GroupVersionKind) client.Object {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind)
	o.SetNamespace(namespace)
	o.SetName("countersign")
	return o
}

// reports waits until the reports in both formats contain exactly the wanted results. want has the
// results by namespace, each as "result policy workload".
func (b *bed) reports(t *testing.T, want map[string][]string) {
	t.Helper()
	for namespace := range want {
		slices.Sort(want[namespace])
	}
	for _, kind := range reportKinds() {
		poll.Await(t, "the reports as "+kind.Kind, func() error {
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(kind)
			if err := b.List(t.Context(), list); err != nil {
				return err
			}
			got := map[string][]string{}
			for _, o := range list.Items {
				results, _, err := unstructured.NestedSlice(o.Object, "results")
				if err != nil {
					return err
				}
				lines := []string{}
				for _, r := range results {
					result, _ := r.(map[string]any)
					resources, _, _ := unstructured.NestedSlice(result, "resources")
					if len(resources) != 1 {
						return fmt.Errorf("got a result about %v, want one resource", resources)
					}
					resource, _ := resources[0].(map[string]any)
					if resource["kind"] != "Pod" || resource["apiVersion"] != "v1" ||
						resource["namespace"] != o.GetNamespace() {
						return fmt.Errorf("got a result about %v, want a Pod in %s", resource, o.GetNamespace())
					}
					lines = append(lines, fmt.Sprintf("%s %s %s", result["result"], result["policy"], resource["name"]))
				}
				slices.Sort(lines)
				got[o.GetNamespace()] = lines
			}
			if !maps.EqualFunc(got, want, slices.Equal) {
				return fmt.Errorf("got %q, want %q", got, want)
			}
			return nil
		})
	}
}
