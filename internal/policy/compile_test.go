package policy_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
)

func require(r ...v1alpha1.RoleRequirement) edit {
	return func(s *v1alpha1.ImagePolicySpec) { s.RequiredRoles = r }
}

// Each defect of a spec gives an error that names the field, and a policy that denies an image that
// would be admitted without the defect.
func TestThreatEmptyOrUnreadablePolicyDenies(t *testing.T) {
	tests := map[string]struct {
		edits []edit
		want  string
	}{
		"no images":          {[]edit{images()}, "spec.images: "},
		"unreadable pattern": {[]edit{images("registry.example.com/acme/**", "Acme/**")}, "spec.images[1]: "},
		"unreadable exception": {[]edit{func(s *v1alpha1.ImagePolicySpec) {
			s.ExceptImages = []v1alpha1.ImagePattern{"registry.example.com/acme/app:v1"}
		}}, "spec.exceptImages[0]: "},
		"unreadable selector": {[]edit{func(s *v1alpha1.ImagePolicySpec) {
			s.NamespaceSelector = &v1alpha1.NamespaceSelector{
				MatchExpressions: []v1alpha1.NamespaceRequirement{{Key: "env", Operator: "Near"}},
			}
		}}, "spec.namespaceSelector: "},
		"unreadable label": {
			[]edit{selects("z=", "a", "env ", "production", "y=", "a")},
			`spec.namespaceSelector.matchLabels: no label has the name "env ": `,
		},
		"unreadable label value": {
			[]edit{selects("b", "y*", "env", "ok", "a", "z*")},
			`spec.namespaceSelector.matchLabels: no label has the value "z*", which is given for "a": `,
		},
		"unreadable key of an expression": {[]edit{func(s *v1alpha1.ImagePolicySpec) {
			s.NamespaceSelector = &v1alpha1.NamespaceSelector{
				MatchExpressions: []v1alpha1.NamespaceRequirement{
					{Key: "env", Operator: "Exists"}, {Key: "env=", Operator: "Exists"},
				},
			}
		}}, `spec.namespaceSelector.matchExpressions[1]: no label has the name "env=": `},
		"unknown mode":        {[]edit{mode("Sometimes")}, "spec.mode: "},
		"unknown pin":         {[]edit{pin("Perhaps")}, "spec.pinDigests: "},
		"no trust roots":      {[]edit{from()}, "spec.trustRoots: "},
		"nameless trust root": {[]edit{from("acme-notary", "")}, "spec.trustRoots[1]: "},
		"neither":             {[]edit{require()}, "spec: "},
		"both":                {[]edit{func(s *v1alpha1.ImagePolicySpec) { s.AllowUnsigned = ptr.To(true) }}, "spec: "},
		"allowUnsigned false": {
			[]edit{require(), func(s *v1alpha1.ImagePolicySpec) { s.AllowUnsigned = ptr.To(false) }}, "spec: ",
		},
		"both, one empty": {[]edit{require([]v1alpha1.RoleRequirement{}...), func(s *v1alpha1.ImagePolicySpec) {
			s.RequiredRoles = []v1alpha1.RoleRequirement{}
			s.AllowUnsigned = ptr.To(true)
		}}, "spec: "},
		"empty list": {
			[]edit{func(s *v1alpha1.ImagePolicySpec) { s.RequiredRoles = []v1alpha1.RoleRequirement{} }},
			"spec.requiredRoles: ",
		},
		"empty requirement": {
			[]edit{require(v1alpha1.RoleRequirement{Role: "ci"}, v1alpha1.RoleRequirement{})},
			"spec.requiredRoles[1]: ",
		},
		"role and anyOf": {
			[]edit{require(v1alpha1.RoleRequirement{Role: "ci", AnyOf: []v1alpha1.RoleName{"qa"}})},
			"spec.requiredRoles[0]: ",
		},
		"empty anyOf": {
			[]edit{require(v1alpha1.RoleRequirement{AnyOf: []v1alpha1.RoleName{}})},
			"spec.requiredRoles[0].threshold: ",
		},
		"empty role in anyOf": {
			[]edit{require(v1alpha1.RoleRequirement{AnyOf: []v1alpha1.RoleName{"ci", ""}})},
			"spec.requiredRoles[0].anyOf[1]: ",
		},
		"threshold 0":              {[]edit{requires("0 of ci qa")}, "spec.requiredRoles[0].threshold: "},
		"threshold below 0":        {[]edit{requires("-1 of ci qa")}, "spec.requiredRoles[0].threshold: "},
		"threshold above the list": {[]edit{requires("3 of ci qa")}, "spec.requiredRoles[0].threshold: "},
		"threshold by repetition":  {[]edit{requires("3 of ci qa ci")}, "spec.requiredRoles[0].threshold: "},
		"threshold of a role": {
			[]edit{require(v1alpha1.RoleRequirement{Role: "ci", Threshold: ptr.To[int32](1)})},
			"spec.requiredRoles[0].threshold: ",
		},
	}
	everySignature := roots{"acme-notary": signed("ci v1 a", "qa v1 a")}
	if got := decide(app, everySignature, compiled(t, "sound")); got.Verdict != policy.Admitted {
		t.Fatalf("without a defect: verdict %d, %s", got.Verdict, got.Message)
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Compile("defect", spec(tc.edits...))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tc.want)
			}
			got := decide(app, everySignature, p, compiled(t, "sound"))
			if got.Verdict == policy.Admitted || !strings.Contains(got.Message, tc.want) {
				t.Errorf("verdict %d, message %q; want a denial that names the field", got.Verdict, got.Message)
			}
			advice := spec(tc.edits...)
			if advice.Mode == v1alpha1.ModeEnforce {
				advice.Mode = v1alpha1.ModeWarn
				p, _ = policy.Compile("defect", advice)
				if got := decide(app, everySignature, p); got.Verdict != policy.Admitted || len(got.Warnings) != 1 {
					t.Errorf("in mode Warn: verdict %d, warnings %q", got.Verdict, got.Warnings)
				}
			}
		})
	}
}

func TestUnreadableScopeIsWide(t *testing.T) {
	other := v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{"env": "elsewhere"}}
	tests := map[string]struct {
		image string
		edits []edit
	}{
		"pattern": {"nginx", []edit{images("Acme/**")}},
		"no spec": {"nginx", []edit{func(s *v1alpha1.ImagePolicySpec) { *s = v1alpha1.ImagePolicySpec{} }}},
		"selector": {
			app,
			[]edit{func(s *v1alpha1.ImagePolicySpec) { s.NamespaceSelector = &other; other.MatchLabels["="] = "=" }},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := decide(tc.image, roots{}, broken(t, "defect", tc.edits...)); got.Verdict != policy.CouldNotCheck {
				t.Errorf("verdict %d, %s", got.Verdict, got.Message)
			}
		})
	}
	p, err := policy.Compile("nil", nil)
	if err == nil {
		t.Error("a nil spec compiled")
	}
	if got := decide("nginx", roots{}, p); got.Verdict != policy.CouldNotCheck {
		t.Errorf("a nil spec: verdict %d", got.Verdict)
	}
}

func TestCompileDefaults(t *testing.T) {
	// An object may be older than the defaults of its CRD.
	p := compiled(t, "production", mode(""), pin(""))
	if got := decide(app, roots{"acme-notary": signed()}, p); got.Verdict != policy.Denied {
		t.Errorf("without a mode: verdict %d", got.Verdict)
	}
	if got := decide(app, roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, p); got.Pin != v1alpha1.PinPods {
		t.Errorf("without pinDigests: %q", got.Pin)
	}
	one := compiled(t, "production", require(v1alpha1.RoleRequirement{AnyOf: []v1alpha1.RoleName{"ci", "qa"}}))
	if got := decide(app, roots{"acme-notary": signed("qa v1 a")}, one); got.Verdict != policy.Admitted {
		t.Errorf("without a threshold: verdict %d, %s", got.Verdict, got.Message)
	}
}

func TestPolicyAccessors(t *testing.T) {
	tests := map[string]struct {
		edits []edit
		roles string
	}{
		"roles":    {nil, "ci,qa"},
		"any of":   {[]edit{requires("ci", "qa", "2 of a b c")}, "ci,qa,2 of 3"},
		"unsigned": {[]edit{unsignedAllowed}, "none"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := compiled(t, "production", tc.edits...)
			if p.Name() != "production" || p.Roles() != tc.roles {
				t.Errorf("name %q, roles %q; want production, %q", p.Name(), p.Roles(), tc.roles)
			}
		})
	}
	if p := broken(t, "production", requires("0 of ci qa")); p.Roles() != "" {
		t.Errorf("roles that cannot be read: %q", p.Roles())
	}
}

func TestCoverage(t *testing.T) {
	scoped := func(s *v1alpha1.ImagePolicySpec) {
		s.ExceptImages = []v1alpha1.ImagePattern{"registry.example.com/acme/sandbox/*"}
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{
			MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
		}
	}
	production := labels.Set{"env": "production"}
	tests := map[string]struct {
		image     string
		namespace labels.Set
		covered   bool
	}{
		"covered":             {app, production, true},
		"another case":        {"REGISTRY.example.com:443/acme/app", production, true},
		"another repository":  {"registry.example.com/other/app", production, false},
		"another port":        {"registry.example.com:5000/acme/app", production, false},
		"exception":           {"registry.example.com/acme/sandbox/app", production, false},
		"below the exception": {"registry.example.com/acme/sandbox/app/x", production, true},
		"another namespace":   {app, labels.Set{"env": "test"}, false},
		"no labels":           {app, nil, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for uncovered, want := range map[policy.Uncovered]policy.Verdict{
				policy.UncoveredAllow: policy.Admitted, policy.UncoveredWarn: policy.Admitted,
				policy.UncoveredDeny: policy.Denied,
			} {
				set := policy.NewSet(uncovered, []*policy.Policy{compiled(t, "production", scoped)})
				got := set.Decide(policy.Request{Image: tc.image, NamespaceLabels: tc.namespace, Now: now},
					roots{"acme-notary": unreachable})
				if tc.covered {
					want = policy.CouldNotCheck
				}
				if got.Verdict != want {
					t.Errorf("uncovered %d: verdict %d, want %d; %s", uncovered, got.Verdict, want, got.Message)
				}
				if warns := len(got.Warnings) > 0; warns != (!tc.covered && uncovered == policy.UncoveredWarn) {
					t.Errorf("uncovered %d: warnings %q", uncovered, got.Warnings)
				}
			}
		})
	}
}

// selects returns an edit that sets matchLabels, from alternating keys and values.
func selects(keysAndValues ...string) edit {
	return func(s *v1alpha1.ImagePolicySpec) {
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{MatchLabels: map[string]v1alpha1.LabelValue{}}
		for pair := range slices.Chunk(keysAndValues, 2) {
			s.NamespaceSelector.MatchLabels[pair[0]] = v1alpha1.LabelValue(pair[1])
		}
	}
}

// An object may be older than its CRD. A private key in it must not appear in a condition, event,
// log or denial.
func TestThreatPrivateKeyInOlderPolicy(t *testing.T) {
	const secret = "MC4CAQAwBQYDK2VwBCIEIAbcdefghijklmnopqrstuvwxyz"
	const key = "-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\n"
	for field, e := range map[string]edit{
		"spec.images[0]": images(key),
		"spec.exceptImages[0]": func(s *v1alpha1.ImagePolicySpec) {
			s.ExceptImages = []v1alpha1.ImagePattern{key}
		},
		"spec.namespaceSelector.matchLabels":        selects(key, "a"),
		"spec.namespaceSelector.matchLabels, value": selects("a", key),
		"spec.namespaceSelector.matchExpressions[0]": func(s *v1alpha1.ImagePolicySpec) {
			s.NamespaceSelector = &v1alpha1.NamespaceSelector{
				MatchExpressions: []v1alpha1.NamespaceRequirement{{Key: key, Operator: "Exists"}},
			}
		},
		"spec.namespaceSelector": func(s *v1alpha1.ImagePolicySpec) {
			s.NamespaceSelector = &v1alpha1.NamespaceSelector{
				MatchExpressions: []v1alpha1.NamespaceRequirement{{Key: "a", Operator: key}},
			}
		},
		"spec.mode":       mode(key),
		"spec.pinDigests": pin(key),
	} {
		p, err := policy.Compile("older", spec(e))
		field, _, _ = strings.Cut(field, ", ")
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Fatalf("%s: error %v does not name it", field, err)
		}
		denial := decide(app, roots{"acme-notary": signed("ci v1 a", "qa v1 a")}, p)
		if denial.Verdict == policy.Admitted {
			t.Errorf("%s: admitted", field)
		}
		for _, text := range []string{err.Error(), denial.Message} {
			if strings.Contains(text, secret[:8]) {
				t.Errorf("%s: %s", field, text)
			}
		}
	}
}
