package compliance

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// facts is the evidence of one repository.
type facts struct {
	trust.Unsigned
	all     []trust.Statement
	expires time.Time
}

// signed returns evidence with the given statements. Each is "role tag digest".
func signed(all ...string) *facts {
	f := &facts{}
	for _, s := range all {
		p := strings.Fields(s)
		f.all = append(f.all, trust.Statement{Role: p[0], Tag: p[1], Digest: digest(p[2])})
	}
	return f
}

func (f *facts) where(holds func(trust.Statement) bool) []trust.Statement {
	return slices.DeleteFunc(slices.Clone(f.all), func(s trust.Statement) bool { return !holds(s) })
}

func (f *facts) Statements(tag, digest string) []trust.Statement {
	return f.where(func(s trust.Statement) bool {
		return (tag == "" || s.Tag == tag) && (digest == "" || s.Digest == digest)
	})
}

func (f *facts) Expiry() (time.Time, string) { return f.expires, "timestamp" }

// roots holds evidence by trust root and repository. A missing repository is not loaded. The fetch
// of a repository with nil failed.
type roots map[string]map[string]*facts

func (r roots) Usable(root string) error {
	if r[root] == nil {
		return trust.NewFault(v1alpha1.ReasonTrustRootNotFound, "TrustRoot %q does not exist", root)
	}
	return nil
}

func (r roots) Subject(_ string, image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Repository()}
}

func (roots) Tenant(trust.Key, string) (trust.Key, bool) { return trust.Key{}, false }

func (r roots) Evidence(about trust.Key) (trust.Evidence, time.Duration, error) {
	f, ok := r[about.Root][about.Repository]
	switch {
	case !ok:
		return nil, 0, policy.ErrNotLoaded
	case f == nil:
		return nil, 0, trust.NewFault(v1alpha1.ReasonUnreachable, "no answer")
	}
	return f, 0, nil
}

type rule struct {
	name, images, env, root string
	mode                    v1alpha1.PolicyMode
	roles                   []v1alpha1.RoleName
}

func compile(t testing.TB, rules ...rule) *policy.Set {
	t.Helper()
	var all []*policy.Policy
	for _, r := range rules {
		spec := &v1alpha1.ImagePolicySpec{
			Images:     []v1alpha1.ImagePattern{v1alpha1.ImagePattern(r.images)},
			TrustRoots: []v1alpha1.ObjectName{v1alpha1.ObjectName(r.root)}, Mode: r.mode,
		}
		for _, role := range r.roles {
			spec.RequiredRoles = append(spec.RequiredRoles, v1alpha1.RoleRequirement{Role: role})
		}
		if r.env != "" {
			spec.NamespaceSelector = &v1alpha1.NamespaceSelector{
				MatchLabels: map[string]v1alpha1.LabelValue{"env": v1alpha1.LabelValue(r.env)},
			}
		}
		p, err := policy.Compile(r.name, spec)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return policy.NewSet(policy.UncoveredAllow, all)
}

func pod(name string, images ...Image) Pod {
	return Pod{
		Workload: Workload{"v1", "Pod", "shop", name}, Controller: Reference{"v1", "Pod", name, "uid"}, Images: images,
	}
}

const app = "registry.example.com/acme/app"

// evaluate evaluates Pods against one policy that requires ci and qa.
func evaluate(t testing.TB, held *facts, pods ...Pod) *Result {
	t.Helper()
	return Evaluate(Input{
		Pods: pods, Namespaces: map[string]labels.Set{"shop": {"env": "production"}}, Now: now,
		Roots: roots{"acme": {app: held}},
		Policies: compile(t, rule{
			name: "production", images: "registry.example.com/acme/**", root: "acme",
			roles: []v1alpha1.RoleName{"ci", "qa"},
		}),
	})
}

func TestOneImage(t *testing.T) {
	both := []string{"ci v1 a", "qa v1 a", "ci v2 b", "qa other c", "ci another c"}
	violates := func(image string, missing ...string) []ImageFinding {
		return []ImageFinding{
			{Image: image, Verdict: policy.Denied, Reason: v1alpha1.ReasonNotSigned, Missing: missing},
		}
	}
	unchecked := func(image, reason string, missing ...string) []ImageFinding {
		return []ImageFinding{{Image: image, Verdict: policy.CouldNotCheck, Reason: reason, Missing: missing}}
	}
	cases := map[string]struct {
		held  *facts
		image Image
		want  []ImageFinding
	}{
		"signed":                           {signed(both...), Image{app + ":v1", digest("a")}, nil},
		"unsigned tag, signed digest runs": {signed(both...), Image{app + ":v9", digest("a")}, nil},
		"signed tag, unsigned digest runs": {
			signed(both...), Image{app + ":v1", digest("d")}, violates(app+"@"+digest("d"), "ci", "qa"),
		},
		"pinned, neither is signed": {
			signed(both...), Image{app + ":v1@" + digest("e"), digest("d")}, violates(app+"@"+digest("e"), "ci", "qa"),
		},
		"pinned, reported digest unsigned": {signed(both...), Image{app + ":v1@" + digest("a"), digest("d")}, nil},
		"pinned, reported digest signed":   {signed(both...), Image{app + "@" + digest("d"), digest("a")}, nil},
		"pinned, each digest signed by one role": {
			signed("ci v1 a", "qa v1 b"), Image{app + "@" + digest("a"), digest("b")},
			violates(app+"@"+digest("a"), "qa"),
		},
		"pinned with another tag": {signed(both...), Image{app + ":v9@" + digest("a"), ""}, nil},
		"signed by ci only": {
			signed(both...), Image{app + ":v1", digest("b")}, violates(app+"@"+digest("b"), "qa"),
		},
		"signed by each role under another tag": {signed(both...), Image{app + ":v1", digest("c")}, nil},
		"nothing reported":                      {signed(both...), Image{app + ":v1", ""}, nil},
		"nothing reported, unsigned tag": {
			signed(both...), Image{app + ":v9", ""}, violates(app+":v9", "ci", "qa"),
		},
		"nothing reported, pinned": {signed(both...), Image{app + ":v1@" + digest("a"), ""}, nil},
		"no signature in the repository": {
			signed(), Image{app + ":v1", digest("a")}, violates(app+"@"+digest("a"), "ci", "qa"),
		},
		"another spelling": {
			signed(both...), Image{"Registry.example.com:443/acme/app:v1", digest("d")},
			violates("Registry.example.com:443/acme/app@"+digest("d"), "ci", "qa"),
		},
		"could not be fetched": {
			nil, Image{app + ":v1", digest("a")},
			unchecked(app+"@"+digest("a"), v1alpha1.ReasonUnreachable, "ci", "qa"),
		},
		"expired": {
			&facts{all: signed(both...).all, expires: now}, Image{app + ":v1", digest("a")},
			unchecked(app+"@"+digest("a"), v1alpha1.ReasonMetadataExpired, "ci", "qa"),
		},
		"not loaded": {
			signed(both...), Image{app + "-new:v1", digest("a")},
			unchecked(app+"-new@"+digest("a"), v1alpha1.ReasonNotLoaded),
		},
		"cannot be parsed": {
			signed(both...), Image{digest("a"), digest("a")}, unchecked(digest("a"), v1alpha1.ReasonInvalidImage),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := evaluate(t, c.held, pod("web", c.image))
			if len(r.Findings) != 1 {
				t.Fatalf("got findings %+v, want one", r.Findings)
			}
			for i := range c.want {
				if _, tag, _ := strings.Cut(c.image.Spec, ":v"); c.image.Digest != "" &&
					!strings.Contains(c.image.Spec, "@") && tag != "" &&
					c.want[i].Reason != v1alpha1.ReasonInvalidImage {
					c.want[i].Tag = "v" + tag
				}
			}
			if diff := cmp.Diff(c.want, r.Findings[0].Images); diff != "" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
			want := Summary{Covered: 1, Findings: r.Findings}
			switch {
			case c.want == nil:
			case c.want[0].Verdict == policy.Denied:
				want.Violating = 1
			default:
				want.Unchecked = 1
			}
			if diff := cmp.Diff(want, r.Policies["production"]); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
		})
	}
}

// A reference that cannot be parsed gives no finding in a namespace where no policy holds.
func TestUnparsableWhereNoPolicyHolds(t *testing.T) {
	in := Input{
		Pods: []Pod{pod("web", Image{digest("a"), ""})}, Namespaces: map[string]labels.Set{"shop": {"env": "lab"}},
		Now: now, Roots: roots{},
		Policies: compile(t, rule{
			name: "production", env: "production", images: "*/**", root: "acme", roles: []v1alpha1.RoleName{"ci"},
		}),
	}
	if r := Evaluate(in); len(r.Findings) != 0 {
		t.Errorf("got findings %+v, want none", r.Findings)
	}
	in.Namespaces["shop"]["env"] = "production"
	if r := Evaluate(in); len(r.Findings) != 1 || r.Findings[0].Verdict != policy.CouldNotCheck {
		t.Errorf("got findings %+v, want one unchecked", r.Findings)
	}
}

// A workload that could not be checked is neither a violation nor compliant.
func TestThreatUncheckedIsKeptApart(t *testing.T) {
	for name, held := range map[string]*facts{"fault": nil, "expired": {expires: now}} {
		r := evaluate(t, held, pod("web", Image{app + ":v1", digest("a")}))
		if got := r.Policies["production"]; got.Unchecked != 1 || got.Violating != 0 || got.Covered != 1 {
			t.Errorf("%s: got %+v, want one unchecked", name, got)
		}
	}
}

func TestWorstImageDecides(t *testing.T) {
	good, bad, unknown := Image{app + ":v1", digest("a")}, Image{app + ":v2", digest("b")}, Image{
		app + "-new:v1", digest("a"),
	}
	cases := map[string]struct {
		images []Image
		want   policy.Verdict
		n      int
	}{
		"all good":                   {[]Image{good}, policy.Admitted, 0},
		"unknown":                    {[]Image{good, unknown}, policy.CouldNotCheck, 1},
		"bad":                        {[]Image{good, bad}, policy.Denied, 1},
		"bad and unknown":            {[]Image{bad, unknown, good}, policy.Denied, 2},
		"unknown before bad":         {[]Image{unknown, bad}, policy.Denied, 2},
		"one digest under two tags":  {[]Image{bad, {app, digest("b")}}, policy.Denied, 1},
		"one digest under two hosts": {[]Image{bad, {"Registry.example.com/acme/app", digest("b")}}, policy.Denied, 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var pods []Pod
			for _, image := range c.images { // each in its own Pod of one workload
				pods = append(pods, pod("web", image))
			}
			r := evaluate(t, signed("ci v1 a", "qa v1 a"), pods...)
			if len(r.Findings) != 1 || r.Findings[0].Verdict != c.want || len(r.Findings[0].Images) != c.n {
				t.Errorf("got findings %+v, want one with verdict %d and %d images", r.Findings, c.want, c.n)
			}
		})
	}
}

func TestNamespaces(t *testing.T) {
	in := Input{
		Pods: []Pod{pod("web", Image{app + ":v1", ""})}, Now: now, Roots: roots{"acme": {app: signed()}},
		Namespaces: map[string]labels.Set{
			"other":   {"env": "production", v1alpha1.LabelBreakGlass: "incident-1"},
			"another": {"env": "production", v1alpha1.LabelBreakGlass: "incident-2"},
			"test":    {v1alpha1.LabelBreakGlass: "no-matter"},
			"closed":  {"env": "production", v1alpha1.LabelBreakGlass: ""},
		},
		Policies: compile(t, rule{
			name: "production", images: "registry.example.com/acme/**", env: "production", root: "acme",
			roles: []v1alpha1.RoleName{"ci"},
		}),
	}
	r := Evaluate(in)
	want := Summary{BreakGlass: []BreakGlass{{"another", "incident-2"}, {"other", "incident-1"}}}
	if diff := cmp.Diff(want, r.Policies["production"]); diff != "" {
		t.Errorf("a Pod in a namespace that is exempt or not in the cache yet: summary (-want +got):\n%s", diff)
	}
	in.Namespaces["shop"] = labels.Set{"env": "test"}
	if got := Evaluate(in).Policies["production"].Covered; got != 0 {
		t.Errorf("the policy does not hold: got %d covered, want 0", got)
	}
	in.Namespaces["shop"] = labels.Set{"env": "production"}
	if got := Evaluate(in).Policies["production"]; got.Covered != 1 || got.Violating != 1 {
		t.Errorf("the policy holds: got %+v, want 1 covered and violating", got)
	}
}

// WouldDeny counts what mode Enforce would deny, for policies in other modes. Nowhere is true for a
// policy that holds in no namespace.
func TestWouldDenyAndNowhere(t *testing.T) {
	roles := []v1alpha1.RoleName{"ci"}
	all := "registry.example.com/acme/**"
	in := Input{
		Pods: []Pod{
			pod("good", Image{app + ":v1", digest("a")}), pod("bad", Image{app + ":v1", digest("b")}),
			pod("unknown", Image{app + "-new:v1", digest("a")}),
		},
		Now: now, Roots: roots{"acme": {app: signed("ci v1 a")}},
		Namespaces: map[string]labels.Set{"shop": {"env": "production"}, "lab": {"env": "test"}},
		Policies: compile(t,
			rule{name: "audit", images: all, root: "acme", roles: roles, mode: v1alpha1.ModeAudit},
			rule{name: "warn", images: all, env: "production", root: "acme", roles: roles, mode: v1alpha1.ModeWarn},
			rule{name: "enforce", images: all, root: "acme", roles: roles, mode: v1alpha1.ModeEnforce},
			rule{name: "typo", images: all, env: "no-such", root: "acme", roles: roles},
			rule{name: "elsewhere", images: all, env: "test", root: "acme", roles: roles},
			rule{name: "other-images", images: "registry.example.com/other/**", root: "acme", roles: roles},
		),
	}
	got := Evaluate(in).Policies
	for name, s := range got {
		s.Findings = nil
		got[name] = s
	}
	want := map[string]Summary{
		"audit":   {Covered: 3, Violating: 1, Unchecked: 1, WouldDeny: 2},
		"warn":    {Covered: 3, Violating: 1, Unchecked: 1, WouldDeny: 2},
		"enforce": {Covered: 3, Violating: 1, Unchecked: 1}, "typo": {Nowhere: true}, "elsewhere": {},
		"other-images": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("summaries (-want +got):\n%s", diff)
	}
}

func TestNeeds(t *testing.T) {
	r := evaluate(t, signed(), pod("a", Image{app + ":v1", ""}, Image{app + ":v2", digest("a")}),
		pod("b", Image{app + "-new:v1", ""}), pod("c", Image{"docker.io/library/nginx:1", ""}))
	var got []string
	for _, k := range r.Needs {
		got = append(got, k.Root+" "+k.Repository)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"acme " + app, "acme " + app + "-new"}, got); diff != "" {
		t.Errorf("needs (-want +got):\n%s", diff)
	}
	if r.NotLoaded != 1 {
		t.Errorf("got %d images not loaded, want 1", r.NotLoaded)
	}
}

// world is a random input of TestEvaluateAgreesWithTheRule.
type world struct {
	rules      []rule
	roots      roots
	namespaces map[string]labels.Set
	pods       []Pod
}

func newWorld(r *rand.Rand) world {
	w := world{roots: roots{}, namespaces: map[string]labels.Set{"n0": {"env": "e0"}, "n1": {"env": "e1"}, "n2": {}}}
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	for _, root := range []string{"r0", "r1"} {
		w.roots[root] = map[string]*facts{}
		for i := range 4 {
			repository := fmt.Sprintf("registry.example.com/p%d/app", i)
			switch r.IntN(6) {
			case 0: // not loaded
			case 1:
				w.roots[root][repository] = nil
			default:
				f := &facts{}
				for range r.IntN(8) {
					f.all = append(f.all, trust.Statement{
						Role: pick("ci", "qa", "sec"), Tag: pick("v1", "v2"), Digest: digest(pick("a", "b")),
					})
				}
				w.roots[root][repository] = f
			}
		}
	}
	for i := range r.IntN(4) {
		one := rule{
			name:   fmt.Sprintf("policy-%d", i),
			images: pick("registry.example.com/**", "registry.example.com/p0/*", "registry.example.com/p1/app"),
			env:    pick("", "e0", "e1"), root: pick("r0", "r1", "missing"),
			mode: v1alpha1.PolicyMode(pick("Enforce", "Warn", "Audit")),
		}
		for _, role := range []v1alpha1.RoleName{"ci", "qa", "sec"} {
			if r.IntN(2) == 0 {
				one.roles = append(one.roles, role)
			}
		}
		if len(one.roles) > 0 {
			w.rules = append(w.rules, one)
		}
	}
	for range r.IntN(12) {
		p := Pod{
			Workload:   Workload{"apps/v1", "Deployment", pick("n0", "n1", "n2", "exempt"), pick("x", "y")},
			Controller: Reference{"apps/v1", "ReplicaSet", "z", "1"},
		}
		for range 1 + r.IntN(2) {
			i := Image{Spec: fmt.Sprintf("registry.example.com/p%d/app", r.IntN(4))}
			if r.IntN(3) > 0 {
				i.Spec, i.Digest = i.Spec+pick(":v1", ":v2", "", "@"+digest("c")), digest(pick("a", "b"))
			} else {
				i.Spec += "@" + digest(pick("a", "b"))
			}
			p.Images = append(p.Images, i)
		}
		w.pods = append(w.pods, p)
	}
	return w
}

// judge is a second, simple implementation of the rule. It returns the verdict of a policy on an
// image, or "" if the policy does not cover it.
func (w world) judge(p rule, namespace string, i Image) string {
	repository, pinned, _ := strings.Cut(i.Spec, "@")
	repository = strings.TrimSuffix(strings.TrimSuffix(repository, ":v1"), ":v2")
	set, known := w.namespaces[namespace]
	if !known || p.env != "" && set["env"] != p.env ||
		!strings.HasPrefix(repository, strings.TrimRight(p.images, "*")) {
		return ""
	}
	held, loaded := w.roots[p.root][repository]
	if !loaded || held == nil {
		return "unchecked"
	}
	for _, digest := range []string{i.Digest, pinned} {
		unsigned := func(role v1alpha1.RoleName) bool {
			return !slices.ContainsFunc(held.all,
				func(s trust.Statement) bool { return s.Role == string(role) && s.Digest == digest })
		}
		if digest != "" && !slices.ContainsFunc(p.roles, unsigned) {
			return "met"
		}
	}
	return "violates"
}

func TestEvaluateAgreesWithTheRule(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(r)
		got := Evaluate(Input{
			Pods: w.pods, Namespaces: w.namespaces, Policies: compile(t, w.rules...), Roots: w.roots, Now: now,
		})
		want := map[string]string{}
		for _, p := range w.rules {
			for _, pod := range w.pods {
				key := fmt.Sprint(p.name, pod.Workload)
				for _, i := range pod.Images {
					switch verdict := w.judge(p, pod.Workload.Namespace, i); {
					case verdict == "":
					case want[key] == "" || want[key] == "met" || verdict == "violates":
						want[key] = verdict
					}
				}
			}
		}
		found := map[string]string{}
		for _, f := range got.Findings {
			found[fmt.Sprint(f.Policy, f.Workload)] = map[policy.Verdict]string{
				policy.Denied: "violates", policy.CouldNotCheck: "unchecked", policy.Admitted: "met",
			}[f.Verdict]
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Fatalf("seed %d, input %+v: findings (-want +got):\n%s", seed, w, diff)
		}
		for _, v := range want {
			seen[v]++
		}
		if !slices.IsSortedFunc(got.Findings, compareFindings) {
			t.Fatalf("seed %d: got unsorted findings", seed)
		}
		r.Shuffle(len(w.pods), func(i, j int) { w.pods[i], w.pods[j] = w.pods[j], w.pods[i] })
		again := Evaluate(Input{
			Pods: w.pods, Namespaces: w.namespaces, Policies: compile(t, w.rules...), Roots: w.roots, Now: now,
		})
		if diff := cmp.Diff(got.Policies, again.Policies); diff != "" {
			t.Fatalf("seed %d: another order of the Pods changed the result:\n%s", seed, diff)
		}
	}
	if seen["violates"] < 100 || seen["unchecked"] < 100 || seen["met"] < 100 {
		t.Errorf("got %v findings by verdict, want at least 100 of each", seen)
	}
}

// cluster returns 10,000 Pods of 2,000 Deployments with 2,000 images in 50 namespaces. They share
// no strings, like decoded Pods.
func cluster() []Pod {
	yes := true
	var pods []Pod
	for i := range 10_000 {
		d := i / 5
		image := fmt.Sprintf("registry.example.com/acme/team-%d/app-%d:v1", d%100, d)
		p := full()
		p.Namespace, p.Name = fmt.Sprintf("namespace-%d", d%50), fmt.Sprintf("app-%d-abcdef-%d", d, i)
		p.OwnerReferences[0] = metav1.OwnerReference{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: fmt.Sprintf("app-%d-abcdef", d), UID: "2",
			Controller: &yes,
		}
		p.Spec = corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "app", ImageID: strings.TrimSuffix(image, ":v1") + "@" + digest("a")},
		}
		p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses = nil, nil
		pods = append(pods, NewPod(p))
	}
	return pods
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func largeInput(t testing.TB, pods []Pod) Input {
	t.Helper()
	in := Input{Pods: pods, Namespaces: map[string]labels.Set{}, Now: now, Roots: roots{"acme": {}}}
	for i := range 50 {
		in.Namespaces[fmt.Sprintf("namespace-%d", i)] = labels.Set{"env": "production"}
	}
	var rules []rule
	for i := range 20 {
		rules = append(rules, rule{
			name: fmt.Sprintf("team-%d", i), images: fmt.Sprintf("registry.example.com/acme/team-%d/**", i),
			root: "acme", roles: []v1alpha1.RoleName{"ci"},
		})
	}
	rules = append(rules, rule{
		name: "all", images: "registry.example.com/**", root: "acme", roles: []v1alpha1.RoleName{"ci", "qa"},
	})
	in.Policies = compile(t, rules...)
	return in
}

// The limit for 10,000 Pods with their findings is 100 MiB, including garbage and the first list of
// the Pods. This test measures only the live part.
func TestMemoryOfTenThousandPods(t *testing.T) {
	before := heap()
	pods := cluster()
	held := heap() - before
	in := largeInput(t, pods)
	r := Evaluate(in)
	all := heap() - before
	t.Logf("Pods %d KiB, with the evaluation %d KiB", held>>10, all>>10)
	if len(r.Findings) != 2000+20*20 || r.NotLoaded != 2000 {
		t.Errorf("got %d findings and %d images not loaded, want 2400 and 2000", len(r.Findings), r.NotLoaded)
	}
	if all > 20<<20 {
		t.Errorf("got %d MiB, want at most 20", all>>20)
	}
	runtime.KeepAlive(pods)
	runtime.KeepAlive(in)
}

func BenchmarkEvaluate(b *testing.B) {
	in := largeInput(b, cluster())
	b.ReportAllocs()
	for b.Loop() {
		if len(Evaluate(in).Findings) == 0 {
			b.Fatal("got no findings")
		}
	}
}
