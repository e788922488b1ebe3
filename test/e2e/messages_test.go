package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestMessages checks kubectl's output where a denial can say more than that an image is not
// signed.
func TestMessages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	t.Run("denials", b.testDenialsSayWhatIsKnown)
	t.Run("help and mode Warn", b.testHelpAndWarn)
	t.Run("a policy that selects nothing", b.testSelectsNothing)
	t.Run("columns", b.testTrustRootsColumn)
}

// printed returns the output of "kubectl run" with an image.
func (b *bed) printed(t *testing.T, name, image string) (out string, denied bool) {
	t.Helper()
	out, err := b.kube.RunKubectl(t.Context(), "", "--namespace", production, "run", name, "--image="+image)
	return out, err != nil
}

func (b *bed) testDenialsSayWhatIsKnown(t *testing.T) {
	b.images++
	gun := fmt.Sprintf("%s/acme/app-%d", registry, b.images)
	keys, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	newcomer := gun + "-newcomer"
	_, err = b.signer.CreateRepository(t.Context(), newcomer)
	must(t, err)
	b.sign(t, newcomer, "v1", 1)
	b.sign(t, gun, "half", 1, "ci")
	b.sign(t, gun, "targets", 1)
	b.create(t, b.policy("security", gun, "acme-notary", "security"))
	b.ready(t, &v1alpha1.ImagePolicy{}, "security", metav1.ConditionTrue, v1alpha1.ReasonInForce)

	const start = "Error from server (Forbidden): admission webhook \"validate.countersign.dev\" denied the request: "
	targets := "no signatures for this tag that count (TrustRoot \"acme-notary\"); targets signed " +
		"sha256:00000000..., which proves no role: " +
		"sign with a delegation of the role ('docker trust signer add'; administrators: or name targets in " +
		"spec.notary.roles[].delegations of the TrustRoot)"
	for name, c := range map[string]struct{ image, want string }{
		"newcomer": {
			newcomer + ":v1",
			`ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; ` + targets +
				"; delegations targets/ci, targets/qa are not in this repository, which has none (TrustRoot " +
				"\"acme-notary\")",
		},
		"targets-alone": {
			gun + ":targets",
			`ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; ` + targets +
				` (TrustRoot "acme-notary")`,
		},
		"no-delegation": {
			gun + ":half",
			`ImagePolicy "security": role "security" has not signed it; ci signed sha256:00000000... (TrustRoot "acme-notary"); ` +
				`delegation targets/security is not in this repository, which has targets/ci, targets/qa (TrustRoot "acme-notary")`,
		},
		"ordinary": {
			gun + ":half",
			`ImagePolicy "production": role "qa" has not signed sha256:00000000...; signed by ci (TrustRoot "acme-notary")`,
		},
		"no-data": {
			gun + "-none:v1",
			`ImagePolicy "production": role "ci" has not signed it, role "qa" has not signed it; no trust data for this repository (TrustRoot "acme-notary")`,
		},
	} {
		out, denied := b.printed(t, name, c.image)
		if !denied || !strings.HasPrefix(out, start) || !strings.Contains(out, fmt.Sprintf("image %q: ", c.image)) ||
			!strings.Contains(out, c.want) {
			t.Errorf("%s: got denied %t and kubectl output\n%s\nwant\n%s", name, denied, out, c.want)
		}
	}
	must(t, b.Delete(t.Context(), &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "security"}}))

	b.sign(t, gun, "v1", 1, "ci", "qa")
	root := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme-notary"}}
	b.update(t, root, func() { root.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(keys["qa"].KeyID)} })
	b.untilPrinted(t, "revoked", gun+":v1",
		"signed by ci (TrustRoot \"acme-notary\"); targets/qa.json is signed by key "+keys["qa"].KeyID+
			", which is revoked (administrators: spec.revokedKeys of the TrustRoot) (TrustRoot \"acme-notary\")")
	b.update(t, root, func() {
		root.Spec.RevokedKeys = nil
		root.Spec.Notary.Roles = []v1alpha1.NotaryRole{
			{Name: "qa", Delegations: []v1alpha1.DelegationName{"targets/ci", "targets/qa"}, Threshold: 2},
		}
	})
	b.untilPrinted(t, "threshold", gun+":half",
		`targets/ci signed sha256:00000000..., which is 1 of the 2 keys that role "qa" needs (TrustRoot "acme-notary")`)
	b.update(t, root, func() {
		root.Spec.Notary.Roles = nil
		root.Spec.IdentityRemap = []v1alpha1.IdentityRemap{
			{Prefix: "mirror.example.com/", SignedPrefix: registry + "/"},
		}
	})
	p := b.policy("mirror", "mirror.example.com/acme/**", "acme-notary", "qa")
	b.create(t, p)
	b.ready(t, p, "mirror", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	mirrored := "mirror.example.com" + strings.TrimPrefix(gun, registry)
	b.untilPrinted(t, "mirror", mirrored+":half",
		`ci signed sha256:00000000... (TrustRoot "acme-notary"); looked up as "`+gun+`" (TrustRoot "acme-notary")`)
	must(t, b.Delete(t.Context(), p))
}

// untilPrinted waits until kubectl prints a denial that contains a text: an edit needs a moment to
// take effect.
func (b *bed) untilPrinted(t *testing.T, name, image, want string) {
	t.Helper()
	poll.Await(t, "the denial of "+name, func() error {
		if out, denied := b.printed(t, name, image); !denied || !strings.Contains(out, want) {
			_, _ = b.kube.RunKubectl(t.Context(), "", "--namespace", production, "delete", "pod", name,
				"--ignore-not-found", "--wait=false")
			return fmt.Errorf("got denied %t and kubectl output %s; want %s", denied, out, want)
		}
		return nil
	})
}

// testHelpAndWarn sets the policy's help text, and then its mode to Warn.
func (b *bed) testHelpAndWarn(t *testing.T) {
	const help = "Ask #qa to sign: https://wiki.example.com/signing"
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci")
	p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "production"}}
	b.update(t, p, func() { p.Spec.Help = help })
	said := `role "qa" has not signed sha256:00000000...; signed by ci (TrustRoot "acme-notary"); ` + help
	b.untilPrinted(t, "helped", gun+":v1", said)

	b.update(t, p, func() { p.Spec.Mode = v1alpha1.ModeWarn })
	b.ready(t, p, "production", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	d := workloads(gun + ":v1")["Deployment"]
	d.SetGenerateName("")
	d.SetName("warned")
	poll.Await(t, "mode Warn in force", func() error { return b.Create(t.Context(), d) })
	out, err := b.kube.RunKubectl(t.Context(), "", "--namespace", production, "scale", "deployment", "warned",
		"--replicas=1")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 1, Violating: 1}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	if p.Spec.Mode != v1alpha1.ModeWarn {
		t.Fatalf("got mode %s, want Warn", p.Spec.Mode)
	}
	log, err := os.ReadFile(b.manager.Log())
	must(t, err)
	logged := false
	for line := range strings.Lines(string(log)) {
		logged = logged || strings.Contains(line, "Admitted what a policy in mode Warn would deny") &&
			strings.Contains(line, "warned-") &&
			strings.Contains(line, "#qa to sign")
	}
	if !logged {
		t.Error("got no log line that mode Warn admitted a Pod of the Deployment")
	}
	out, denied := b.printed(t, "warned-directly", gun+":v1")
	if denied || !strings.Contains(out, "Warning: image ") || !strings.Contains(out, said) {
		t.Errorf("got denied %t and kubectl output %s; want a warning with %s", denied, out, said)
	}
}

func (b *bed) testSelectsNothing(t *testing.T) {
	typo := b.policy("typo", registry+"/acme/**", "acme-notary", "ci")
	typo.Spec.NamespaceSelector.MatchLabels["env"] = "no-such"
	images := b.policy("images", registry+"/amce/**", "acme-notary", "ci")
	for want, p := range map[string]*v1alpha1.ImagePolicy{
		"no namespace matches spec.namespaceSelector":                                     typo,
		"no image that runs in the namespaces where the policy holds matches spec.images": images,
	} {
		b.create(t, p)
		if got := b.condition(t, p, p.Name, v1alpha1.ConditionCompliant, metav1.ConditionTrue,
			v1alpha1.ReasonNothingRuns); !strings.Contains(got, want) {
			t.Errorf("%s: got message %q, want it to contain %q", p.Name, got, want)
		}
		must(t, b.Delete(t.Context(), p))
	}
}

func (b *bed) testTrustRootsColumn(t *testing.T) {
	p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "production"}}
	b.update(t, p, func() { p.Spec.TrustRoots = []v1alpha1.ObjectName{"acme-notary", "acme-old"} })
	b.ready(t, p, "production", metav1.ConditionFalse, v1alpha1.ReasonTrustRootNotFound)
	must(t, b.Get(t.Context(), client.ObjectKey{Name: "production"}, p))
	out, err := b.kube.RunKubectl(t.Context(), "", "get", "imagepolicies.countersign.dev", "production", "-o", "wide")
	must(t, err)
	if !strings.Contains(out, " acme-notary,acme-old ") {
		t.Errorf("got kubectl output\n%s\nwant acme-notary,acme-old in it", out)
	}
}
