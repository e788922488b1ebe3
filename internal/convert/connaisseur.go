package convert

import (
	"fmt"
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
		rules[i].alone = true
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

// notary reads a validator of the type notaryv1.
func (k *connaisseur) notary(v, with value) (demand, error) {
	chosen, ref, err := k.signers(v, with)
	if err != nil {
		return demand{}, err
	}
	name := validatorName(v)
	if ref != "*" && ref != "default" {
		name += "-" + ref
	}
	delegations, err := with.texts("delegations")
	if err != nil {
		return demand{}, err
	}
	key := fmt.Sprintf("connaisseur/%s/%s", validatorName(v), ref)
	tr, err := k.objects.root(key, name, func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.Notary = &v1alpha1.NotarySpec{}
		if err := k.server(v, tr.Spec.Notary); err != nil {
			return err
		}
		for _, s := range chosen {
			key, at, err := s.at.text("key")
			if err != nil {
				return err
			}
			text, err := at.publicKeyPEM(key)
			if err != nil {
				return err
			}
			tr.Spec.Notary.Root.Keys = append(tr.Spec.Notary.Root.Keys, text)
			s.at.finish()
		}
		return nil
	})
	if err != nil {
		return demand{}, err
	}
	var d demand
	if len(delegations) == 0 {
		d.role(tr.Name, k.anySigner(with, tr))
		return d, nil
	}
	at, _ := with.get("delegations")
	for _, wanted := range delegations {
		role, err := k.delegation(at, tr, wanted)
		if err != nil {
			return demand{}, err
		}
		d.role(tr.Name, role)
	}
	return d, nil
}

// anySigner returns the role of a Notary repository that any of its signers meets. The source
// accepts the targets/releases of whoever signed last, and no role of ours is that.
func (c *converter) anySigner(at value, tr *v1alpha1.TrustRoot) v1alpha1.RoleName {
	const role = roleAnySigner
	for _, r := range tr.Spec.Notary.Roles {
		if r.Name == role {
			return role
		}
	}
	// Only a key that nobody has may speak for the role until a person names the signers: else a
	// delegation of its name would.
	entry := v1alpha1.NotaryRole{Name: role, Keys: []v1alpha1.PEM{nobodysKey}}
	if len(c.options.Signers) > 0 {
		entry.Keys = nil
		for _, s := range c.options.Signers {
			entry.Delegations = append(entry.Delegations, v1alpha1.DelegationName(delegationOf(s)))
		}
		c.note(at, noteSigners, strings.Join(c.options.Signers, ", "))
	} else {
		c.note(at, noteAnySigner, tr.Name)
	}
	tr.Spec.Notary.Roles = append(tr.Spec.Notary.Roles, entry)
	return role
}

// delegationOf returns the full name of a delegation.
func delegationOf(name string) string {
	if name == "targets" || strings.HasPrefix(name, "targets/") {
		return name
	}
	return "targets/" + name
}

// delegation returns the role of one delegation.
func (k *connaisseur) delegation(at value, tr *v1alpha1.TrustRoot, wanted string) (v1alpha1.RoleName, error) {
	full := delegationOf(wanted)
	short := strings.TrimPrefix(full, "targets/")
	if full == "targets/releases" || full == "targets" {
		return k.anySigner(at, tr), nil
	}
	if !validDelegation(full) {
		return "", at.fault("names %q, and delegations have lower-case letters, digits, '-' and '_'", short)
	}
	role := k.role(at, tr.Name, tr.Name, short)
	if string(role) != short && !slices.ContainsFunc(tr.Spec.Notary.Roles, func(r v1alpha1.NotaryRole) bool {
		return r.Name == role
	}) {
		tr.Spec.Notary.Roles = append(tr.Spec.Notary.Roles, v1alpha1.NotaryRole{
			Name: role, Delegations: []v1alpha1.DelegationName{v1alpha1.DelegationName(full)},
		})
	}
	return role, nil
}

func validDelegation(full string) bool {
	return len(full) <= 255 && strings.Trim(full, "abcdefghijklmnopqrstuvwxyz0123456789-_/") == "" &&
		!strings.Contains(full, "//") && !strings.HasSuffix(full, "/")
}

// server reads the address of a Notary server, its CA and credentials.
func (k *connaisseur) server(v value, spec *v1alpha1.NotarySpec) error {
	host, at, err := v.text("host")
	if err != nil {
		return err
	}
	if host == "" {
		host = "notary.docker.io"
	}
	if !strings.HasPrefix(strings.ToLower(host), "https://") && !strings.HasPrefix(strings.ToLower(host), "http://") {
		host = "https://" + host
	}
	if strings.ContainsAny(host, "@?# ") {
		return at.fault("has a user, a query or white space: write the URL of the server alone")
	}
	scheme, rest, _ := strings.Cut(host, "://")
	spec.Server = strings.ToLower(scheme) + "://" + strings.TrimSuffix(rest, "/")
	if strings.EqualFold(scheme, "http") {
		spec.PlainHTTP = v1alpha1.PlainHTTPAllow
	}
	if spec.CABundle, err = caBundle[v1alpha1.PEMBundle](v, "cert"); err != nil {
		return err
	}
	if field, ok := v.get("isAcr", "is_acr"); ok {
		k.note(field, noteACR)
	}
	secret, at, err := k.auth(v)
	if err != nil || secret == "" {
		return err
	}
	if spec.PlainHTTP == v1alpha1.PlainHTTPAllow {
		k.note(at, notePlainCredentials)
		return nil
	}
	spec.CredentialsSecretRef = &v1alpha1.SecretReference{Name: v1alpha1.ObjectName(secret)}
	k.note(at, noteBasicSecret, secret, k.options.Namespace)
	return nil
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

// auth returns the name of the Secret with the credentials of a validator.
func (k *connaisseur) auth(v value) (string, value, error) {
	auth, ok := v.get("auth")
	if !ok {
		return "", v, nil
	}
	defer auth.finish()
	name, at, err := auth.text("secretName", "secret_name")
	if err != nil {
		return "", v, err
	}
	if name != "" {
		return objectNameOf(name), at, nil
	}
	if field, ok := auth.get("useKeychain", "k8s_keychain"); ok {
		k.note(field, noteKeychain)
	}
	user, hasUser := auth.get("username")
	auth.get("password")
	if hasUser {
		return objectNameOf(validatorName(v) + "-credentials"), user, nil
	}
	return "", v, nil
}

// registry gives a trust root the settings of a registry.
func (k *connaisseur) registry(v value, tr *v1alpha1.TrustRoot, hosts []string) error {
	secret, at, err := k.auth(v)
	if err != nil {
		return err
	}
	bundle, err := caBundle[v1alpha1.RegistryCABundle](v, "cert")
	if err != nil || secret == "" && bundle == "" {
		return err
	}
	if len(hosts) == 0 {
		k.note(v, noteRegistryUnknown)
		return nil
	}
	if secret != "" {
		k.note(at, notePullSecret, secret, k.options.Namespace)
	}
	for _, host := range hosts {
		known := slices.ContainsFunc(tr.Spec.Registries, func(r v1alpha1.Registry) bool { return r.Host == host })
		if known || len(tr.Spec.Registries) == maxRegistry {
			continue
		}
		r := v1alpha1.Registry{Host: host, CABundle: bundle}
		if secret != "" {
			r.CredentialsSecretRef = &v1alpha1.SecretReference{Name: v1alpha1.ObjectName(secret)}
		}
		tr.Spec.Registries = append(tr.Spec.Registries, r)
	}
	return nil
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
