package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/documents"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/policyfiles"
	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
	"github.com/countersign-dev/countersign/internal/workload"
	"github.com/countersign-dev/countersign/webhooks"
)

// cases is how many random estates TestThreatVerifyDecidesAsTheGate makes.
const cases = 40

// estate is a random set of policies, namespaces and workloads.
type estate struct {
	random    *rand.Rand
	bed       *bed
	policies  []any
	flags     []string
	workloads []map[string]any
}

// What verify says about manifests is what the gate decides about the same objects: a pipeline that
// passes would be admitted, and each denial has the gate's own text.
func TestThreatVerifyDecidesAsTheGate(t *testing.T) {
	t.Parallel()
	b := newBed(t, signers.Notary, signers.Sigstore)
	verdicts := map[string]int{}
	for seed := range uint64(cases) {
		e := &estate{random: rand.New(rand.NewPCG(seed, 17)), bed: b}
		e.make()
		folder := t.TempDir()
		policies := writeObjects(t, folder, "policies.yaml", e.policies...)
		items := make([]any, 0, len(e.workloads))
		for _, w := range e.workloads {
			items = append(items, w)
		}
		manifest := writeObjects(t, folder, "workloads.yaml", items...)
		args := append([]string{"verify", "--policies", policies, "-f", manifest, "-o", "json"}, e.flags...)
		report := verified(t, args)
		g := newGate(t, policies, e.flags)
		for i, w := range e.workloads {
			got := report.Workloads[i]
			for _, image := range got.Images {
				verdicts[image.Verdict]++
			}
			if diff := cmp.Diff(g.decide(t, w).normalised(), outcomeOf(got).normalised()); diff != "" {
				t.Errorf("seed %d, flags %q, %s in %s (-gate +verify):\n%s", seed, e.flags, got.Kind, got.Namespace,
					diff)
			}
		}
		if t.Failed() {
			content, _ := os.ReadFile(policies)
			t.Fatalf("the policies are:\n%s", content)
		}
	}
	for _, v := range []string{preview.VerdictAdmitted, preview.VerdictDenied, preview.VerdictCouldNotCheck} {
		if verdicts[v] < cases/4 {
			t.Errorf("got %d images with the verdict %s, want at least %d", verdicts[v], v, cases/4)
		}
	}
}

// outcome is what the gate, or verify, says about one workload.
type outcome struct {
	Admitted bool
	// Fault says that an image could not be checked.
	Fault bool
	// Denials are the texts, sorted.
	Denials []string
}

// normalised replaces the name of the file that could not be fetched: several are fetched side by
// side, and the first that fails is named.
func (o outcome) normalised() outcome {
	o.Denials = slices.Clone(o.Denials)
	for i := range o.Denials {
		o.Denials[i] = strings.ReplaceAll(o.Denials[i], "timestamp.json", "root.json")
	}
	slices.Sort(o.Denials)
	return o
}

// outcomeOf returns the outcome of a report.
func outcomeOf(w preview.WorkloadReport) outcome {
	o := outcome{Admitted: w.Verdict == preview.VerdictAdmitted}
	if o.Admitted {
		return o
	}
	for _, i := range w.Images {
		if i.Verdict != preview.VerdictAdmitted {
			o.Denials = append(o.Denials, i.Message)
		}
		o.Fault = o.Fault || i.Verdict == preview.VerdictCouldNotCheck
	}
	slices.Sort(o.Denials)
	return o
}

// verified runs verify, and returns its report.
func verified(t *testing.T, args []string) preview.Report {
	t.Helper()
	streams, _, out, errs := genericiooptions.NewTestIOStreams()
	code := run(t.Context(), args, streams)
	var report preview.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%q: code %d, %v; stderr: %s", args, code, err, errs)
	}
	want := exitDone
	switch {
	case report.Summary.Denied > 0:
		want = exitDenied
	case report.Summary.CouldNotCheck > 0:
		want = exitCouldNotCheck
	}
	if code != want {
		t.Errorf("got exit code %d with %+v, want %d", code, report.Summary, want)
	}
	return report
}

// testGate is the gate itself, with a store of its own.
type testGate struct {
	*webhooks.Gate
	engine *preview.Engine
}

// newGate returns the gate of the policies in a file.
func newGate(t *testing.T, policies string, args []string) *testGate {
	t.Helper()
	set, err := policyfiles.Read(t.Context(), []string{policies}, policyfiles.Options{
		Namespace: "countersign-system", Documents: documents.Options{},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	read := flags.DeclareSettings(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	settings, err := read.Read("countersign-system")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := preview.New(t.Context(), preview.Options{Source: preview.FromFiles(set), Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	return &testGate{engine: engine, Gate: &webhooks.Gate{
		Store: engine.Store, Tracker: engine.Tracker, Namespaces: set.Reader(), LiveNamespaces: set.Reader(),
		Kinds: settings.Kinds, Clock: clock.RealClock{}, Deadline: time.Minute, Events: &events.FakeRecorder{},
	}}
}

// decide mutates and validates the creation of a workload, as the API server does.
func (g *testGate) decide(t *testing.T, object map[string]any) outcome {
	t.Helper()
	meta := object["metadata"].(map[string]any)
	namespace := meta["namespace"].(string)
	if g.engine.Exempt.Has(namespace) { // the API server does not call the gate
		return outcome{Admitted: true}
	}
	raw, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	kind := kindOf(t, object["kind"].(string))
	request := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "1", Name: "w", Namespace: namespace, Operation: admissionv1.Create,
		Kind:     metav1.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Name},
		Resource: metav1.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: kind.Resource},
	}}
	request.Object.Raw = raw
	mutated := g.Mutate(t.Context(), request)
	if len(mutated.Patches) > 0 {
		encoded, err := json.Marshal(mutated.Patches)
		if err != nil {
			t.Fatal(err)
		}
		patch, err := jsonpatch.DecodePatch(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = patch.Apply(raw); err != nil {
			t.Fatal(err)
		}
	}
	request.Object.Raw = raw
	answer := g.Validate(t.Context(), request)
	if answer.Allowed {
		return outcome{Admitted: true}
	}
	o := outcome{Fault: answer.Result.Code == http.StatusServiceUnavailable}
	o.Denials = strings.Split(answer.Result.Message, "\n")
	slices.Sort(o.Denials)
	return o
}

func kindOf(t *testing.T, name string) workload.Kind {
	t.Helper()
	for _, k := range workload.Builtin() {
		if k.Name == name {
			return k
		}
	}
	t.Fatalf("there is no kind %s", name)
	return workload.Kind{}
}

// make fills the estate.
func (e *estate) make() {
	e.flags = []string{
		"--uncovered-images=" + pick(e, "Allow", "Warn", "Deny"), "--short-names=" + pick(e, "DockerIO", "Deny"),
		"--exempt-namespaces=legacy",
	}
	for format := range e.bed.roots {
		e.policies = append(e.policies, e.bed.root(format))
	}
	slices.SortFunc(e.policies, func(a, b any) int {
		return strings.Compare(a.(*v1alpha1.TrustRoot).Name, b.(*v1alpha1.TrustRoot).Name)
	})
	dead := e.bed.root(signers.Notary)
	dead.Name, dead.Spec.Notary = "dead", dead.Spec.Notary.DeepCopy()
	dead.Spec.Notary.Server = "https://localhost:1"
	e.policies = append(e.policies, dead)
	for n, labels := range []map[string]string{{"env": "production"}, {"env": "test"}, nil} {
		ns := corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: namespaces[n], Labels: labels},
		}
		if e.random.IntN(8) == 0 {
			ns.Labels = map[string]string{v1alpha1.LabelBreakGlass: "INC-1"}
		}
		e.policies = append(e.policies, ns)
	}
	for n := range 1 + e.random.IntN(3) {
		e.policies = append(e.policies, imagePolicy("p"+strconv.Itoa(n), e.policy()))
	}
	for n := range 6 {
		e.workloads = append(e.workloads, e.workload(n))
	}
}

// namespaces are those of the estate. The first three have a Namespace.
var namespaces = []string{"shop", "lab", "plain", "legacy", "kube-system"}

// policy returns a random policy.
func (e *estate) policy() v1alpha1.ImagePolicySpec {
	host := e.bed.registry.Host
	scope := pick(e, host+"/acme/**", host+"/acme/sigstore", "*/**", "docker.io/library/*")
	p := v1alpha1.ImagePolicySpec{
		Images:     []v1alpha1.ImagePattern{v1alpha1.ImagePattern(scope)},
		Mode:       v1alpha1.PolicyMode(pick(e, "Enforce", "Enforce", "Warn", "Audit")),
		PinDigests: v1alpha1.PinDigests(pick(e, "Pods", "All", "None")),
	}
	if e.random.IntN(3) == 0 {
		p.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{
			"env": v1alpha1.LabelValue(pick(e, "production", "test")),
		}}
	}
	if e.random.IntN(8) == 0 {
		p.AllowUnsigned, p.PinDigests = new(true), ""
		return p
	}
	for _, root := range []string{"notary", "sigstore", "dead", "gone"} {
		if e.random.IntN(3) == 0 && (root != "gone" || e.random.IntN(3) == 0) {
			p.TrustRoots = append(p.TrustRoots, v1alpha1.ObjectName(root))
		}
	}
	if !strings.HasPrefix(scope, host) { // no request must leave the machine
		p.TrustRoots = slices.DeleteFunc(p.TrustRoots, func(r v1alpha1.ObjectName) bool { return r == "sigstore" })
	}
	if len(p.TrustRoots) == 0 {
		p.TrustRoots = []v1alpha1.ObjectName{"notary"}
	}
	p.RequiredRoles = []v1alpha1.RoleRequirement{{Role: v1alpha1.RoleName(pick(e, "ci", "qa"))}}
	if e.random.IntN(2) == 0 {
		p.RequiredRoles = []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}}
	}
	return p
}

// workload returns a random workload with up to three images.
func (e *estate) workload(n int) map[string]any {
	kinds := workload.Builtin()
	kind := kinds[e.random.IntN(len(kinds))]
	spec := map[string]any{}
	var containers, init []any
	for i := range 1 + e.random.IntN(3) {
		c := map[string]any{"name": fmt.Sprintf("c%d", i), "image": e.image()}
		if i > 0 && e.random.IntN(3) == 0 {
			init = append(init, c)
			continue
		}
		containers = append(containers, c)
	}
	if spec["containers"] = containers; len(init) > 0 {
		spec["initContainers"] = init
	}
	version := kind.Version
	if kind.Group != "" {
		version = kind.Group + "/" + kind.Version
	}
	object := map[string]any{
		"apiVersion": version, "kind": kind.Name,
		"metadata": map[string]any{
			"name": fmt.Sprintf("w%d", n), "namespace": namespaces[e.random.IntN(len(namespaces))],
		},
	}
	template := map[string]any{"spec": spec}
	switch kind.Name {
	case "Pod":
		object["spec"] = spec
	case "PodTemplate":
		object["template"] = template
	case "CronJob":
		object["spec"] = map[string]any{"jobTemplate": map[string]any{"spec": map[string]any{"template": template}}}
	default:
		object["spec"] = map[string]any{"template": template}
	}
	return object
}

// image returns a random image: signed or not, missing, short, or unparsable.
func (e *estate) image() string {
	images := []string{
		"nginx", "docker.io/library/nginx:1", "registry.example.com/other/app:v1", "Not/An:Image:", "",
		e.bed.registry.Host + "/acme/missing:v1",
	}
	for _, of := range e.bed.images {
		for _, one := range of {
			images = append(images, one.Tagged(), one.ByDigest(), one.Tagged()+"@"+one.Digest)
		}
	}
	slices.Sort(images)
	return images[e.random.IntN(len(images))]
}

func pick(e *estate, from ...string) string { return from[e.random.IntN(len(from))] }
