package convert

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/text"
)

// noSigner is the TrustRoot of policies that admit nothing: they require a role that it does not
// list. A TrustRoot needs some key, so it has one that nobody has the private key of.
const noSigner = "no-signer"

// nobodysKey is a point of P-256 whose x coordinate is a hash, so that nobody knows its private
// key.
const nobodysKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMDrlMNgXXR49lXvoRBs/yoC4bBPb
kwTHqmK+LnCGU7gpj3AtX8wuomX4rqkRW1c6GVvCBRWIL3nX0u5bJo2hzA==
-----END PUBLIC KEY-----
`

// The roles that nobody signs for, and the one that stands for any signer.
const (
	roleDenied       = "denied"
	roleNotConverted = "not-converted"
	roleAnySigner    = "any-signer"
)

// annotationFill marks a ConfigMap that a person has to fill.
const annotationFill = "countersign.dev/fill-in"

// The limits of the API on lists.
const (
	maxPatterns    = 256
	maxHelp        = 512
	maxRoots       = 16
	maxRoles       = 32
	maxRegistry    = 32
	maxNotaryRoles = 64
	maxInlinePEM   = 8192
)

// objects are the objects to be written, by name.
type objects struct {
	namespace  string
	configMaps []*corev1.ConfigMap
	roots      []*v1alpha1.TrustRoot
	policies   []*v1alpha1.ImagePolicy

	taken  map[string]bool
	byKey  map[string]*v1alpha1.TrustRoot
	roleOf map[string]v1alpha1.RoleName // by TrustRoot and name in the source
}

func newObjects(namespace string) *objects {
	return &objects{
		namespace: namespace, taken: map[string]bool{}, byKey: map[string]*v1alpha1.TrustRoot{},
		roleOf: map[string]v1alpha1.RoleName{},
	}
}

// into sorts the objects into a result. ConfigMaps and TrustRoots come before what names them.
func (o *objects) into(r *Result) {
	slices.SortFunc(o.configMaps, func(a, b *corev1.ConfigMap) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(o.roots, func(a, b *v1alpha1.TrustRoot) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(o.policies, func(a, b *v1alpha1.ImagePolicy) int { return cmp.Compare(a.Name, b.Name) })
	for _, object := range o.configMaps {
		r.ConfigMaps = append(r.ConfigMaps, *object)
	}
	for _, object := range o.roots {
		r.TrustRoots = append(r.TrustRoots, *object)
	}
	for _, object := range o.policies {
		r.Policies = append(r.Policies, *object)
	}
}

// check refuses what no TrustRoot takes, and private keys.
func (o *objects) check() error {
	for _, tr := range o.roots {
		roles, limit := 0, maxRoles
		switch spec := tr.Spec; {
		case spec.Notary != nil:
			roles, limit = len(spec.Notary.Roles), maxNotaryRoles
		case spec.Sigstore != nil:
			roles = len(spec.Sigstore.Roles)
		case spec.Notation != nil:
			roles = len(spec.Notation.Roles)
		case spec.SimpleSigning != nil:
			roles = len(spec.SimpleSigning.Roles)
		}
		if roles > limit {
			return fmt.Errorf("TrustRoot %q would have %d roles, and takes %d: split what it is made of",
				tr.Name, roles, limit)
		}
		text, err := json.Marshal(tr)
		if err != nil {
			return fmt.Errorf("checking TrustRoot %q: %w", tr.Name, err)
		}
		if bytes.Contains(text, []byte("PRIVATE KEY")) {
			return fmt.Errorf("TrustRoot %q would have a private key: remove it from the files, and treat it as stolen",
				tr.Name)
		}
	}
	return nil
}

// name returns a name of the kind that no other object has.
func (o *objects) name(kind, wanted string) string {
	base := objectNameOf(wanted)
	name := base
	for n := 2; o.taken[kind+"/"+name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	o.taken[kind+"/"+name] = true
	return name
}

// objectNameOf returns the name of an object that is like the wanted one.
func objectNameOf(wanted string) string {
	name := strings.Trim(replaceRuns(strings.ToLower(wanted), "abcdefghijklmnopqrstuvwxyz0123456789."), "-.")
	for _, doubled := range []string{"..", ".-", "-."} {
		for strings.Contains(name, doubled) {
			name = strings.ReplaceAll(name, doubled, ".")
		}
	}
	if len(name) > 200 {
		name = strings.Trim(name[:200], "-.")
	}
	if name == "" {
		return "unnamed"
	}
	return name
}

// replaceRuns replaces each run of characters that are not allowed by "-".
func replaceRuns(s, allowed string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case strings.ContainsRune(allowed, r):
			b.WriteRune(r)
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return b.String()
}

// root returns the TrustRoot of a key, which fill sets up when it is new.
func (o *objects) root(key, wanted string, fill func(*v1alpha1.TrustRoot) error) (*v1alpha1.TrustRoot, error) {
	if tr, ok := o.byKey[key]; ok {
		return tr, nil
	}
	tr := &v1alpha1.TrustRoot{
		TypeMeta: typeMeta("TrustRoot"), ObjectMeta: metav1.ObjectMeta{Name: o.name("TrustRoot", wanted)},
	}
	if err := fill(tr); err != nil {
		return nil, err
	}
	o.byKey[key] = tr
	o.roots = append(o.roots, tr)
	return tr, nil
}

// nobody returns the name of the TrustRoot that no role is proven by.
func (o *objects) nobody() string {
	tr, err := o.root("nobody", noSigner, func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.Sigstore = &v1alpha1.SigstoreSpec{Roles: []v1alpha1.SigstoreRole{
			{Name: "nobody", Keys: []v1alpha1.PEM{nobodysKey}},
		}}
		return nil
	})
	if err != nil {
		return noSigner
	}
	return tr.Name
}

// configMap returns an entry of a new ConfigMap. Without data it is to be filled by a person.
func (o *objects) configMap(wanted, key, what string, data []byte) v1alpha1.KeySource {
	m := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: o.name("ConfigMap", wanted), Namespace: o.namespace},
	}
	switch {
	case data == nil:
		m.Annotations = map[string]string{annotationFill: key + ": " + what}
	case strings.HasPrefix(string(data), "-----") || strings.HasPrefix(string(data), "{"):
		m.Data = map[string]string{key: string(data)}
	default:
		m.BinaryData = map[string][]byte{key: data}
	}
	o.configMaps = append(o.configMaps, m)
	return v1alpha1.KeySource{Kind: "ConfigMap", Name: v1alpha1.ObjectName(m.Name), Key: key}
}

// role returns the name of a role in a TrustRoot for a name in the source. No other TrustRoot of
// the scope has the name: two demands of one policy must not be met by one signature.
func (c *converter) role(at value, scope, root, wanted string) v1alpha1.RoleName {
	key := root + "\x00" + wanted
	if name, ok := c.objects.roleOf[key]; ok {
		return name
	}
	base := strings.Trim(replaceRuns(strings.ToLower(wanted), "abcdefghijklmnopqrstuvwxyz0123456789-_"), "-")
	if len(base) > 100 {
		base = strings.Trim(base[:100], "-")
	}
	switch base {
	case "", "targets", "releases", roleDenied, roleNotConverted, roleAnySigner:
		base = strings.Trim("signer-"+base, "-")
	}
	name := base
	for n := 2; c.objects.taken["role/"+scope+"/"+name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	c.objects.taken["role/"+scope+"/"+name] = true
	c.objects.roleOf[key] = v1alpha1.RoleName(name)
	if name != wanted {
		c.note(at, noteRenamed, short(wanted), name)
	}
	return v1alpha1.RoleName(name)
}

// short returns a name of the source for a note.
func short(s string) string { return text.Cut(s, 100) }

// demand is what a rule of the source requires.
type demand struct {
	allow  bool
	denies string // why nothing is admitted
	roots  []string
	roles  []v1alpha1.RoleRequirement
	gaps   []string // restrictions that were not carried over
	exact  bool     // it holds for the repositories of the scopes themselves; those below are denied
}

// role adds the requirement of one role of a trust root.
func (d *demand) role(root string, names ...v1alpha1.RoleName) {
	if !slices.Contains(d.roots, root) {
		d.roots = append(d.roots, root)
	}
	r := v1alpha1.RoleRequirement{AnyOf: names}
	if len(names) == 1 {
		r = v1alpha1.RoleRequirement{Role: names[0]}
	}
	d.roles = append(d.roles, r)
}

// rule is one rule of the source.
type rule struct {
	at     value
	name   string
	scope  scope
	demand demand
	pin    v1alpha1.PinDigests
	mode   v1alpha1.PolicyMode
	where  *v1alpha1.NamespaceSelector
	// beats says that this rule alone holds for the images of both. The other rules are more
	// general.
	beats func(other int) bool
	// noted says that the notes about the patterns are given.
	noted bool
	// also are patterns that another policy alone decides about.
	also []string
}

// emit writes the policies of rules. Where several match an image, the source applies one alone:
// the other policies except the patterns of that one.
func (c *converter) emit(rules []rule) {
	for i, r := range rules {
		if r.demand.allow && r.scope.wider && len(r.demand.gaps) == 0 {
			c.note(r.at, noteAllowDropped)
			continue
		}
		except := slices.Clone(r.also)
		for j, other := range rules {
			if i == j || other.scope.wider || other.beats == nil || !other.beats(i) {
				continue
			}
			for _, p := range other.scope.patterns {
				if slices.ContainsFunc(r.scope.patterns, func(own string) bool { return overlap(p, own) }) {
					except = append(except, p)
				}
			}
		}
		slices.Sort(except)
		except = slices.Compact(except)
		if len(except) > maxPatterns {
			c.note(r.at, noteExceptions, maxPatterns)
			except = except[:maxPatterns]
		}
		if r.scope.wider && !r.noted {
			c.note(r.at, noteTag)
		}
		if r.scope.part && !r.noted {
			c.note(r.at, noteSubdomains, maxLabels)
		}
		c.policies(r, except)
	}
}

// policies writes the policies of one rule.
func (c *converter) policies(r rule, except []string) {
	d := r.demand
	if len(d.roots) > maxRoots || len(d.roles) > maxRoles ||
		slices.ContainsFunc(d.roles, func(q v1alpha1.RoleRequirement) bool { return len(q.AnyOf) > maxRoles }) {
		c.note(r.at, noteTooMany, maxRoots, maxRoles)
		d = demand{denies: "it has more roles than a policy takes"}
	}
	if d.exact && d.denies == "" {
		below := r
		below.demand = demand{denies: "the exact repository of the rule has no other below it"}
		below.name += "-below"
		below.scope.patterns = nil
		var own []string
		for _, p := range r.scope.patterns {
			own = append(own, strings.TrimSuffix(p, "/**"))
			below.scope.patterns = append(below.scope.patterns, strings.TrimSuffix(p, "/**")+"/*/**")
		}
		r.scope.patterns = own
		c.policies(below, except)
	}
	for patterns := range slices.Chunk(r.scope.patterns, maxPatterns) {
		spec := v1alpha1.ImagePolicySpec{
			NamespaceSelector: r.where, Mode: r.mode, PinDigests: r.pin,
		}
		for _, p := range patterns {
			spec.Images = append(spec.Images, v1alpha1.ImagePattern(p))
		}
		for _, p := range except {
			spec.ExceptImages = append(spec.ExceptImages, v1alpha1.ImagePattern(p))
		}
		main := spec
		switch {
		case d.denies != "":
			c.deny(&main, roleDenied, "Denied: "+d.denies)
		case d.allow:
			yes := true
			main.AllowUnsigned = &yes
			main.PinDigests = ""
		default:
			for _, root := range d.roots {
				main.TrustRoots = append(main.TrustRoots, v1alpha1.ObjectName(root))
			}
			main.RequiredRoles = d.roles
		}
		c.policy(r.name, main)
		if len(d.gaps) > 0 && d.denies == "" {
			gap := spec
			gap.PinDigests = ""
			c.deny(&gap, roleNotConverted, "Not converted: "+strings.Join(d.gaps, "; ")+
				". Delete this policy once something else restricts these images")
			c.policy(r.name+"-not-converted", gap)
		}
	}
}

// deny lets a policy admit nothing.
func (c *converter) deny(spec *v1alpha1.ImagePolicySpec, role v1alpha1.RoleName, help string) {
	spec.TrustRoots = []v1alpha1.ObjectName{v1alpha1.ObjectName(c.objects.nobody())}
	spec.RequiredRoles = []v1alpha1.RoleRequirement{{Role: role}}
	spec.Help = text.Cut(printable(help), maxHelp)
}

func (c *converter) policy(name string, spec v1alpha1.ImagePolicySpec) {
	c.objects.policies = append(c.objects.policies, &v1alpha1.ImagePolicy{
		TypeMeta: typeMeta("ImagePolicy"), Spec: spec,
		ObjectMeta: metav1.ObjectMeta{Name: c.objects.name("ImagePolicy", name)},
	})
}

// rest returns a policy that denies what no rule of the source matches.
func (c *converter) rest(rules []rule, name string, at value, where *v1alpha1.NamespaceSelector,
	mode v1alpha1.PolicyMode, why string,
) []rule {
	for _, r := range rules {
		if len(r.scope.patterns) == 1 && r.scope.patterns[0] == everything && !r.scope.wider {
			return rules
		}
	}
	general := rule{
		at: at, name: name, scope: scope{patterns: []string{everything}}, where: where, mode: mode,
		demand: demand{denies: why},
	}
	last := len(rules)
	for i := range rules {
		before := rules[i].beats
		rules[i].beats = func(other int) bool { return other == last || before != nil && before(other) }
	}
	return append(rules, general)
}

// printable returns s on one line, without control characters.
func printable(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))), " ")
}
