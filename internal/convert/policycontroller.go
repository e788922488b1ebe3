package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// predicateTypes are the short names that cosign has for types of predicates.
func predicateTypes() map[string]string {
	return map[string]string{
		"custom": "https://cosign.sigstore.dev/attestation/v1", "slsaprovenance": "https://slsa.dev/provenance/v0.2",
		"slsaprovenance02": "https://slsa.dev/provenance/v0.2", "slsaprovenance1": "https://slsa.dev/provenance/v1",
		"spdx": "https://spdx.dev/Document", "spdxjson": "https://spdx.dev/Document",
		"cyclonedx": "https://cyclonedx.org/bom", "link": "https://in-toto.io/Link/v1",
		"vuln": "https://cosign.sigstore.dev/attestation/vuln/v1", "openvex": "https://openvex.dev/ns",
	}
}

func (c *converter) convertPolicyController(documents []value) error {
	var rules []rule
	for _, d := range documents {
		name, _, err := c.head(d, false)
		if err != nil {
			return err
		}
		d.finish()
		spec, err := specOf(d)
		if err != nil {
			return err
		}
		own, err := c.clusterImagePolicy(spec, name)
		if err != nil {
			return err
		}
		rules = append(rules, own...)
		c.note(d, noteIncluded)
	}
	// Every policy that matches must hold, so none is excepted from another. What none matches is
	// denied in the namespaces that the policy-controller watches.
	where := &v1alpha1.NamespaceSelector{
		MatchLabels: map[string]v1alpha1.LabelValue{"policy.sigstore.dev/include": "true"},
	}
	c.emit(c.rest(rules, "no-match", documents[0], where, "", "no ClusterImagePolicy matches the image"))
	return nil
}

// clusterImagePolicy returns the rules of a policy: one for its globs, and one for those with a
// tag.
func (c *converter) clusterImagePolicy(spec value, name string) ([]rule, error) {
	r := rule{at: spec, name: name, noted: true}
	tagged, err := c.globs(spec, &r)
	if err != nil {
		return nil, err
	}
	mode, at, err := spec.text("mode")
	if err != nil {
		return nil, err
	}
	switch mode {
	case "", "enforce":
	case "warn":
		r.mode = v1alpha1.ModeWarn
		c.note(at, noteWarn)
	default:
		return nil, at.fault("is neither enforce nor warn")
	}
	if field, ok := spec.get("match"); ok {
		c.note(field, noteMatch)
	}
	if field, ok := spec.get("policy"); ok {
		c.note(field, notePolicyLanguage)
		r.demand.gaps = append(r.demand.gaps, "spec.policy of the ClusterImagePolicy")
	}
	authorities, err := spec.list("authorities")
	if err != nil {
		return nil, err
	}
	spec.finish()
	if err := c.authorities(authorities, &r); err != nil {
		return nil, err
	}
	var all []rule
	if len(r.scope.patterns) > 0 {
		all = append(all, r)
	}
	if len(tagged.patterns) > 0 {
		r.scope, r.name = tagged, name+"-tags"
		all = append(all, r)
	}
	return all, nil
}

// globs reads the globs of a policy into the scope of its rule. It returns those with a tag apart.
func (c *converter) globs(spec value, r *rule) (tagged scope, err error) {
	images, err := spec.list("images")
	if err != nil {
		return tagged, err
	}
	for _, image := range images {
		glob, at, err := image.text("glob")
		if err != nil {
			return tagged, err
		}
		switch glob {
		case "*":
			glob = "index.docker.io/library/*"
		case "*/*":
			glob = "index.docker.io/*/*"
		}
		s, ok := translate(glob, dialect{single: true})
		if glob == "" || !ok {
			return tagged, at.fault("is no glob that matches an image")
		}
		if s.part {
			c.note(at, noteSubdomains, maxLabels)
		}
		into := &r.scope
		if s.wider {
			c.note(at, noteTag)
			into, tagged.wider = &tagged, true
		}
		into.patterns = append(into.patterns, s.patterns...)
		image.finish()
	}
	for _, s := range []*scope{&r.scope, &tagged} {
		slices.Sort(s.patterns)
		s.patterns = slices.Compact(s.patterns)
	}
	if len(r.scope.patterns)+len(tagged.patterns) == 0 {
		return tagged, spec.fault("has no images")
	}
	return tagged, nil
}

// authorities reads the authorities of a policy, one of which must hold. An authority may require
// several attestations.
func (c *converter) authorities(all []value, r *rule) error {
	var ways [][]v1alpha1.RoleName
	for i, a := range all {
		name, _, err := a.text("name")
		if err != nil {
			return err
		}
		if name == "" {
			name = fmt.Sprintf("authority-%d", i)
		}
		if err := a.one("key", "keyless", "static"); err != nil {
			return err
		}
		if static, ok := a.get("static"); ok {
			action, at, err := static.text("action")
			if err != nil {
				return err
			}
			static.get("message")
			switch action {
			case "pass":
				c.note(at, noteAllow)
				r.demand.allow = true
			case "fail":
			default:
				return at.fault("is neither pass nor fail")
			}
			static.finish()
			a.finish()
			continue
		}
		root, roles, err := c.authority(a, name, r.name)
		if err != nil {
			return err
		}
		a.finish()
		if len(roles) == 0 {
			continue
		}
		if !slices.Contains(r.demand.roots, root) {
			r.demand.roots = append(r.demand.roots, root)
		}
		ways = append(ways, roles)
	}
	if r.demand.allow {
		return nil
	}
	if len(ways) == 0 {
		r.demand.denies = "no authority of the ClusterImagePolicy that is converted admits an image"
		return nil
	}
	for _, names := range product(ways) {
		requirement := v1alpha1.RoleRequirement{AnyOf: names}
		if len(names) == 1 {
			requirement = v1alpha1.RoleRequirement{Role: names[0]}
		}
		r.demand.roles = append(r.demand.roles, requirement)
	}
	return nil
}

// product returns lists with one role of each way: (a and b) or c is (a or c) and (b or c).
func product(ways [][]v1alpha1.RoleName) [][]v1alpha1.RoleName {
	all := [][]v1alpha1.RoleName{nil}
	for _, way := range ways {
		var next [][]v1alpha1.RoleName
		for _, before := range all {
			for _, role := range way {
				next = append(next, append(slices.Clone(before), role))
			}
		}
		if all = next; len(all) > maxRoles {
			return all // policies says that these are too many
		}
	}
	return all
}

// settings are what the authorities of a TrustRoot have in common.
type settings struct {
	log        v1alpha1.TransparencyLog
	root       string // "", "public", or the name of a TrustRoot of the policy-controller, or a note's
	repository string
	unknown    bool
}

// authority reads one authority. It returns no roles where what it accepts cannot be told.
func (c *converter) authority(a value, name, policy string) (string, []v1alpha1.RoleName, error) {
	s, carried, err := c.authoritySettings(a)
	if err != nil || !carried {
		a.skip()
		return "", nil, err
	}
	key := fmt.Sprintf("policy-controller/%s/%v", policy, s)
	tr, err := c.objects.root(key, policy, func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.Sigstore = &v1alpha1.SigstoreSpec{TransparencyLog: s.log, SignatureRepository: s.repository}
		switch {
		case s.root == "public" && !s.unknown:
			tr.Spec.Sigstore.TrustedRoot = publicInstance()
		case s.root != "" || s.unknown:
			root, err := c.sigstoreTrustRoot(a, tr.Name, s.root)
			tr.Spec.Sigstore.TrustedRoot = root
			return err
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	role := v1alpha1.SigstoreRole{Name: c.role(a, policy, tr.Name, name)}
	if keyless, ok := a.peek("keyless"); ok {
		identities, err := keyless.list("identities")
		if err != nil {
			return "", nil, err
		}
		for _, v := range identities {
			id, err := c.identity(v, "issuer", "issuerRegExp", "subject", "subjectRegExp")
			if err != nil {
				return "", nil, err
			}
			role.Identities = append(role.Identities, id)
		}
		keyless.finish()
	} else {
		field, _ := a.get("key")
		usable, err := c.keyRef(field, tr.Name, &role)
		if err != nil {
			return "", nil, err
		}
		carried = carried && usable
	}
	roles, err := c.attestations(a, tr, role, policy, carried)
	if !carried || len(tr.Spec.Sigstore.Roles) == 0 {
		c.forget(tr)
		return "", nil, err
	}
	return tr.Name, roles, err
}

// forget removes a TrustRoot that has no roles.
func (c *converter) forget(tr *v1alpha1.TrustRoot) {
	if len(tr.Spec.Sigstore.Roles) > 0 {
		return
	}
	c.objects.roots = slices.DeleteFunc(c.objects.roots, func(other *v1alpha1.TrustRoot) bool { return other == tr })
	for key, other := range c.objects.byKey {
		if other == tr {
			delete(c.objects.byKey, key)
		}
	}
}

// attestations adds the role of an authority, or one for each attestation that it requires.
func (c *converter) attestations(a value, tr *v1alpha1.TrustRoot, role v1alpha1.SigstoreRole, policy string,
	carried bool,
) ([]v1alpha1.RoleName, error) {
	entries, err := a.list("attestations")
	if err != nil {
		return nil, err
	}
	var all []v1alpha1.SigstoreRole
	if len(entries) == 0 {
		all = append(all, role)
	}
	for _, entry := range entries {
		name, _, err := entry.text("name")
		if err != nil {
			return nil, err
		}
		predicate, at, err := entry.text("predicateType")
		if err != nil {
			return nil, err
		}
		if uri, ok := predicateTypes()[predicate]; ok {
			predicate = uri
		}
		if predicate == "" || strings.ContainsAny(predicate, " \t\n") {
			return nil, at.fault("is no type of a predicate")
		}
		one := role
		one.Name = c.role(entry, policy, tr.Name, string(role.Name)+"-"+name)
		one.Attestation = &v1alpha1.SigstoreAttestation{PredicateType: predicate}
		if field, ok := entry.get("policy"); ok {
			// The condition is never true until a person has written the policy in CEL.
			one.Attestation.Conditions = []string{"false"}
			c.note(field, noteAttestationPolicy, tr.Name, string(one.Name))
		}
		entry.finish()
		all = append(all, one)
	}
	var names []v1alpha1.RoleName
	if !carried {
		return nil, nil
	}
	for _, one := range all {
		names = append(names, one.Name)
		if !slices.ContainsFunc(tr.Spec.Sigstore.Roles, func(r v1alpha1.SigstoreRole) bool {
			return r.Name == one.Name
		}) {
			tr.Spec.Sigstore.Roles = append(tr.Spec.Sigstore.Roles, one)
		}
	}
	return names, nil
}
