package convert

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// connaisseur converts Helm values of Connaisseur 2.x and 3.x.
type connaisseur struct {
	*converter
	old        bool // 2.x: the values have no application
	validators map[string]value
	mode       v1alpha1.PolicyMode
	where      *v1alpha1.NamespaceSelector
}

func (c *converter) convertConnaisseur(d value) error {
	k := &connaisseur{converter: c, validators: map[string]value{}}
	values := d
	application, ok := d.peek("application")
	if k.old = !ok; ok {
		d.get("application")
		values = application
		values.name = ""
		k.outside(d, "kubernetes", "alerting")
		d.finish()
	}
	k.outside(values, "deployment", "service", "alerting", "logLevel", "logFormat", "debug")
	if err := k.features(values); err != nil {
		return err
	}
	all, err := values.list("validators")
	if err != nil {
		return err
	}
	for _, v := range all {
		name, at, err := v.text("name")
		if err != nil {
			return err
		}
		if _, twice := k.validators[name]; twice || name == "" {
			return at.fault("is empty, or the name of a second validator")
		}
		k.validators[name] = v
	}
	policy, err := values.list("policy")
	if err != nil {
		return err
	}
	if len(policy) == 0 {
		return values.fault("has no policy: nothing says which images a validator is for")
	}
	rules := make([]rule, 0, len(policy))
	patterns := make([]string, 0, len(policy))
	for _, p := range policy {
		r, pattern, err := k.rule(p)
		if err != nil {
			return err
		}
		rules, patterns = append(rules, r), append(patterns, pattern)
	}
	for i := range rules {
		rules[i].beats = func(j int) bool { return j < len(patterns) && wins(patterns[i], patterns[j], i > j) }
	}
	field, _ := values.peek("policy")
	rules = c.rest(rules, "all-other-images", field, k.where, k.mode, "no rule of the policy matches the image")
	values.finish()
	for _, name := range slices.Sorted(mapKeys(k.validators)) {
		k.validators[name].finish()
	}
	c.emit(rules)
	return nil
}

// outside notes settings that are no part of a policy.
func (c *converter) outside(v value, fields ...string) {
	for _, name := range fields {
		if field, ok := v.get(name); ok {
			c.note(field, noteOutside)
		}
	}
}

// features reads what holds for all rules.
func (k *connaisseur) features(values value) error {
	f := values
	f.name = "features" // as in 3.x
	if !k.old {
		field, ok := values.get("features")
		if !ok {
			return nil
		}
		f = field
		defer f.finish()
	}
	detection, at, err := f.flag(false, "detectionMode")
	if err != nil {
		return err
	}
	if detection {
		k.mode = v1alpha1.ModeWarn
		k.note(at, noteWarn)
	}
	for _, name := range []string{"automaticChildApproval", "automaticUnchangedApproval", "resourceValidationMode"} {
		if field, ok := f.get(name); ok && field.node.Value != "false" && field.node.Value != "all" {
			k.note(field, noteAlwaysChecked)
		}
	}
	k.outside(f, "cache")
	field, ok := f.get("namespacedValidation")
	if !ok || field.node.Kind != yaml.MappingNode {
		return nil
	}
	mode, at, err := field.text("mode")
	if err != nil {
		return err
	}
	if enabled, _, err := field.flag(!k.old, "enabled"); err != nil || !enabled {
		return err
	}
	field.finish()
	requirement := v1alpha1.NamespaceRequirement{Key: "securesystemsengineering.connaisseur/webhook"}
	switch mode {
	case "", "ignore":
		requirement.Operator, requirement.Values = "NotIn", []v1alpha1.LabelValue{"ignore"}
	case "validate":
		requirement.Operator, requirement.Values = "In", []v1alpha1.LabelValue{"validate"}
	default:
		return at.fault("is neither ignore nor validate")
	}
	k.where = &v1alpha1.NamespaceSelector{MatchExpressions: []v1alpha1.NamespaceRequirement{requirement}}
	return nil
}

// rule reads one rule of the policy.
func (k *connaisseur) rule(p value) (rule, string, error) {
	pattern, at, err := p.text("pattern")
	if err != nil {
		return rule{}, "", err
	}
	s, ok := translate(pattern, dialect{open: true})
	if pattern == "" || !ok {
		return rule{}, "", at.fault("is no pattern that matches an image")
	}
	validator, named, err := p.text("validator")
	if err != nil {
		return rule{}, "", err
	}
	if validator == "" {
		validator = "default"
	}
	v, ok := k.validators[validator]
	if !ok {
		return rule{}, "", named.fault("names the validator %q, which is not there", short(validator))
	}
	with, ok := p.get("with")
	if !ok {
		with = value{c: k.converter, file: p.file, node: &yaml.Node{Kind: yaml.MappingNode, Line: p.node.Line},
			path: p.path + ".with", name: p.name + ".with", seen: p.seen}
	}
	r := rule{at: at, name: ruleName(pattern), scope: s, mode: k.mode, where: k.where}
	mode, at, err := with.text("mode")
	if err != nil {
		return rule{}, "", err
	}
	switch mode {
	case "", "mutate":
	case "insecureValidateOnly":
		r.pin = v1alpha1.PinNone
	default:
		return rule{}, "", at.fault("is neither mutate nor insecureValidateOnly")
	}
	r.demand, err = k.demand(v, with, hostsOf(s))
	if err != nil {
		return rule{}, "", err
	}
	with.finish()
	p.finish()
	return r, pattern, nil
}

// ruleName returns a name for the policy of a pattern.
func ruleName(pattern string) string {
	repository, tag := cutTag(pattern)
	if strings.Trim(tag, ":*") != "" {
		repository += "-" + strings.TrimLeft(tag, ":@")
	}
	if strings.Trim(repository, "*/") == "" {
		return "all-images"
	}
	return strings.TrimLeft(strings.Trim(repository, "*/:"), ".")
}

// hostsOf returns the registries that the patterns name.
func hostsOf(s scope) []string {
	var all []string
	for _, p := range s.patterns {
		host, _, _ := strings.Cut(p, "/")
		if host = strings.ToLower(host); !strings.Contains(host, "*") && !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

// wins reports whether the rule of pattern a, and not that of b, holds for every image that both
// match. Where that depends on the image, it is false for both.
func wins(a, b string, later bool) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	if len(x) != len(y) {
		return len(x) > len(y)
	}
	for i := range x {
		p, q := literal(x[i]), literal(y[i])
		if p != q {
			return p > q
		}
		if strings.Contains(x[i]+y[i], "*") && i < len(x)-1 && x[i] != y[i] {
			return false // what follows depends on how much of the image "*" stands for
		}
	}
	for i := range x {
		if len(x[i]) != len(y[i]) {
			return len(x[i]) > len(y[i])
		}
	}
	return later
}

// literal is how many characters of a part of an image match the part of a pattern at the least.
func literal(part string) int {
	before, _, _ := strings.Cut(part, "*")
	return len(before)
}

// demand reads what a validator requires under the settings of a rule.
func (k *connaisseur) demand(v, with value, hosts []string) (demand, error) {
	kind, at, err := v.text("type")
	if err != nil {
		return demand{}, err
	}
	switch kind {
	case "static":
		approve, at, err := v.flag(false, "approve")
		if err != nil {
			return demand{}, err
		}
		if !approve {
			return demand{denies: "the rule of Connaisseur denies these images"}, nil
		}
		k.note(at, noteAllow)
		return demand{allow: true}, nil
	case "notaryv1":
		return k.notary(v, with)
	case "cosign":
		return k.cosign(v, with, hosts)
	case "notation":
		return k.notation(v, with, hosts)
	}
	k.note(at, noteKind, short(kind))
	return demand{denies: "validators of the type " + short(kind) + " are not converted"}, nil
}

// trustRoot is a trust root of a validator: one signer.
type signer struct {
	at   value
	name string
}

// signers returns the trust roots of a validator that a rule names, and all of them for "*".
func (k *connaisseur) signers(v, with value) (chosen []signer, ref string, err error) {
	ref, at, err := with.text("trustRoot", "trust_root")
	if err != nil {
		return nil, "", err
	}
	if ref == "" {
		ref, at = "default", with
	}
	entries, err := v.list("trustRoots", "trust_roots")
	if err != nil {
		return nil, "", err
	}
	known := map[string]bool{}
	for _, entry := range entries {
		name, nameAt, err := entry.text("name")
		if err != nil {
			return nil, "", err
		}
		if known[name] || name == "" {
			return nil, "", nameAt.fault("is empty, or the name of a second trust root")
		}
		known[name] = true
		if ref == "*" || ref == name {
			chosen = append(chosen, signer{entry, name})
		}
		entry.get("key")
		entry.get("cert")
		entry.get("tsCert")
		entry.get("keyless")
	}
	if len(chosen) == 0 {
		return nil, "", at.fault("needs the trust root %q of the validator, which is not there", short(ref))
	}
	return chosen, ref, nil
}

func validatorName(v value) string {
	name, _ := v.peek("name")
	return name.node.Value
}

// caBundle reads PEM certificates.
func caBundle[T ~string](v value, name string) (T, error) {
	bundle, at, err := v.text(name)
	if err != nil || bundle == "" {
		return "", err
	}
	if strings.Contains(bundle, "PRIVATE KEY") {
		return "", at.fault("has a private key: remove it, and treat the key as stolen")
	}
	if _, err := certificates(bundle); err != nil {
		return "", at.fault("is no bundle of PEM certificates: %s", err)
	}
	return T(bundle), nil
}

// count reads a threshold.
func count(v value, name string) (int, value, error) {
	s, at, err := v.text(name)
	if err != nil || s == "" {
		return 0, at, err
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, at, at.fault("is no number")
	}
	return n, at, nil
}
