package convert

import (
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// imageScope is a scope of the policies of OpenShift, or of containers-policy.json(5).
type imageScope struct {
	name string
	at   value
}

// within reports whether every image of scope a is one of scope b too.
func within(a, b string) bool {
	if domain, ok := strings.CutPrefix(b, "*."); ok {
		host, _, _ := strings.Cut(a, "/")
		return strings.HasSuffix(host, "."+domain)
	}
	return a == b || strings.HasPrefix(a, b) && strings.ContainsRune("/:@", rune(a[len(b)]))
}

// closer reports whether scope a, and not b, decides about the images of both.
func closer(a, b string) bool { return a != b && within(a, b) }

// openshiftPolicy is one policy of OpenShift.
type openshiftPolicy struct {
	name, namespace string
	spec            value
	scopes          []imageScope
}

func (c *converter) convertOpenShift(documents []value) error {
	var cluster, namespaced []openshiftPolicy
	for _, d := range documents {
		kind, _ := d.peek("kind")
		own := kind.node.Value == "ImagePolicy"
		p := openshiftPolicy{}
		var err error
		if p.name, p.namespace, err = c.head(d, own); err != nil {
			return err
		}
		d.finish()
		if p.spec, err = specOf(d); err != nil {
			return err
		}
		entries, err := p.spec.list("scopes")
		if err != nil {
			return err
		}
		for _, entry := range entries {
			s, err := entry.string()
			if err != nil {
				return err
			}
			p.scopes = append(p.scopes, imageScope{s, entry})
		}
		if len(p.scopes) == 0 {
			return p.spec.fault("has no scopes")
		}
		if own {
			namespaced = append(namespaced, p)
		} else {
			cluster = append(cluster, p)
		}
	}
	all, err := c.openshiftRules(cluster, nil)
	if err != nil {
		return err
	}
	c.emit(all)
	byNamespace := map[string][]openshiftPolicy{}
	for _, p := range namespaced {
		byNamespace[p.namespace] = append(byNamespace[p.namespace], p)
	}
	for _, p := range namespaced {
		if policies := byNamespace[p.namespace]; policies != nil {
			delete(byNamespace, p.namespace)
			rules, err := c.openshiftRules(policies, cluster)
			if err != nil {
				return err
			}
			c.emit(rules)
		}
	}
	return nil
}

// openshiftRules returns a rule for each scope of the policies. Policies of the cluster decide
// about their scopes alone.
func (c *converter) openshiftRules(policies, cluster []openshiftPolicy) ([]rule, error) {
	var rules []rule
	var scopes []string
	for _, p := range policies {
		d, err := c.openshiftDemand(p)
		if err != nil {
			return nil, err
		}
		for i, s := range p.scopes {
			r := rule{at: s.at, name: p.name, demand: d}
			if p.namespace != "" {
				r.name, r.where = p.namespace+"-"+p.name, inNamespaces("In", p.namespace)
			}
			if len(p.scopes) > 1 {
				r.name += "-" + ruleName(p.scopes[i].name)
			}
			covered, ok := translateScope(s.name)
			if !ok {
				return nil, s.at.fault("is no scope that matches an image")
			}
			r.scope = covered
			overridden := false
			for _, other := range cluster {
				for _, o := range other.scopes {
					overridden = overridden || within(s.name, o.name)
					if within(o.name, s.name) {
						if more, ok := translateScope(o.name); ok && !more.wider {
							r.also = append(r.also, more.patterns...)
						}
					}
				}
			}
			if overridden {
				c.note(s.at, noteOverridden)
				continue
			}
			rules, scopes = append(rules, r), append(scopes, s.name)
		}
	}
	for i := range rules {
		rules[i].beats = func(j int) bool { return closer(scopes[i], scopes[j]) }
	}
	return rules, nil
}

// openshiftDemand reads what a policy requires.
func (c *converter) openshiftDemand(p openshiftPolicy) (demand, error) {
	name := p.name
	if p.namespace != "" {
		name = p.namespace + "-" + p.name
	}
	policy, ok := p.spec.get("policy")
	if !ok {
		return demand{}, p.spec.fault("has no policy")
	}
	p.spec.finish()
	root, ok := policy.get("rootOfTrust")
	if !ok {
		return demand{}, policy.fault("has no rootOfTrust")
	}
	signed := sigstoreSigned{role: p.name, name: name, policy: name}
	kind, at, err := root.text("policyType")
	if err != nil {
		return demand{}, err
	}
	field := ""
	switch kind {
	case "PublicKey":
		field = "publicKey"
	case "FulcioCAWithRekor":
		field = "fulcioCAWithRekor"
	case "PKI":
		if pki, ok := root.get("pki"); ok {
			c.note(pki, notePKI)
			policy.get("signedIdentity")
			return demand{denies: "certificates of an own PKI are not converted"}, nil
		}
	}
	inner, ok := root.get(field)
	if field == "" || !ok {
		return demand{}, at.fault("needs publicKey, fulcioCAWithRekor or pki of its kind")
	}
	if err := c.openshiftRoot(inner, field, &signed); err != nil {
		return demand{}, err
	}
	root.finish()
	identity := openshiftIdentity{kind: "MatchRepoDigestOrExact"}
	if v, ok := policy.get("signedIdentity"); ok {
		if identity, err = readOpenShiftIdentity(v); err != nil {
			return demand{}, err
		}
		at = v
	}
	policy.finish()
	signed.identity, signed.at = identity, at
	for _, s := range p.scopes {
		signed.scopes = append(signed.scopes, s.name)
	}
	var d demand
	err = c.sigstoreSigned(signed, &d)
	return d, err
}

// openshiftRoot reads keys and certificates.
func (c *converter) openshiftRoot(v value, kind string, signed *sigstoreSigned) error {
	rekor, at, err := v.binary("rekorKeyData")
	if err != nil {
		return err
	}
	if len(rekor) > 0 {
		text, err := at.publicPEM(string(rekor))
		if err != nil {
			return err
		}
		signed.rekor = append(signed.rekor, text)
	}
	if kind == "publicKey" {
		key, at, err := v.binary("keyData")
		if err != nil {
			return err
		}
		text, err := at.publicKeyPEM(string(key))
		if err != nil {
			return err
		}
		signed.keys = append(signed.keys, text)
		v.finish()
		return nil
	}
	ca, at, err := v.binary("fulcioCAData")
	if err != nil {
		return err
	}
	text, err := at.publicPEM(string(ca))
	if err != nil {
		return err
	}
	signed.fulcio = text
	subject, ok := v.get("fulcioSubject")
	if !ok || len(signed.rekor) == 0 {
		return v.fault("needs fulcioSubject and rekorKeyData")
	}
	issuer, _, err := subject.text("oidcIssuer")
	if err != nil {
		return err
	}
	email, _, err := subject.text("signedEmail")
	if err != nil {
		return err
	}
	if issuer == "" || email == "" {
		return subject.fault("needs oidcIssuer and signedEmail")
	}
	subject.finish()
	v.finish()
	signed.identities = []v1alpha1.SigstoreIdentity{{Issuer: issuer, Subject: email}}
	return nil
}

// openshiftIdentity says which name a signature must have.
type openshiftIdentity struct {
	kind                 string
	repository           string
	prefix, signedPrefix string
}

func readOpenShiftIdentity(v value) (openshiftIdentity, error) {
	var identity openshiftIdentity
	kind, at, err := v.text("matchPolicy")
	if err != nil {
		return identity, err
	}
	identity.kind = kind
	known := []string{"MatchRepoDigestOrExact", "MatchRepository", "ExactRepository", "RemapIdentity"}
	if !slices.Contains(known, kind) {
		return identity, at.fault("is no rule for the name in a signature")
	}
	if exact, ok := v.get("exactRepository"); ok {
		if identity.repository, _, err = exact.text("repository"); err != nil {
			return identity, err
		}
		exact.finish()
	}
	if remap, ok := v.get("remapIdentity"); ok {
		if identity.prefix, _, err = remap.text("prefix"); err != nil {
			return identity, err
		}
		if identity.signedPrefix, _, err = remap.text("signedPrefix"); err != nil {
			return identity, err
		}
		remap.finish()
	}
	v.finish()
	return identity, nil
}

// sigstoreSigned is a demand for a signature of Sigstore as containers-policy.json(5) has it.
type sigstoreSigned struct {
	at         value
	name, role string
	policy     string // whose roles must have different names
	keys       []v1alpha1.PEM
	keysFrom   []v1alpha1.KeySource
	identities []v1alpha1.SigstoreIdentity
	fulcio     string
	rekor      []string
	unknown    bool // the Rekor key or the CA is in a file
	identity   openshiftIdentity
	scopes     []string
}

// sigstoreSigned adds the role that meets the demand.
func (c *converter) sigstoreSigned(s sigstoreSigned, d *demand) error {
	remap, ok := s.remap()
	if !ok {
		c.note(s.at, noteSignedTag, s.identity.kind)
		d.denies = "that a signature names the tag is not converted for Sigstore"
		return nil
	}
	key := "sigstoreSigned/" + s.name + "/" + s.at.path + s.at.file
	tr, err := c.objects.root(key, s.name, func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.IdentityRemap = remap
		spec := &v1alpha1.SigstoreSpec{SignedRepository: v1alpha1.SignedRepositoryMatch}
		tr.Spec.Sigstore = spec
		role := v1alpha1.SigstoreRole{
			Name: c.role(s.at, s.policy, tr.Name, s.role), Keys: s.keys, KeysFrom: s.keysFrom, Identities: s.identities,
		}
		spec.Roles = []v1alpha1.SigstoreRole{role}
		if len(s.rekor) == 0 && !s.unknown {
			return nil
		}
		spec.TransparencyLog = v1alpha1.TransparencyLogRequire
		if s.unknown {
			spec.TrustedRoot = c.unknownRoot(s.at, tr.Name)
			return nil
		}
		var cas []string
		if s.fulcio != "" {
			cas = append(cas, s.fulcio)
		}
		root, err := c.customRoot(s.at, tr.Name, cas, s.rekor, nil)
		spec.TrustedRoot = root
		return err
	})
	if err != nil {
		return err
	}
	d.role(tr.Name, tr.Spec.Sigstore.Roles[0].Name)
	d.exact = d.exact || s.identity.kind == "ExactRepository"
	return nil
}

// remap returns the mapping of names that a rule for the name in a signature comes to. It reports
// false where the rule compares tags, which signatures of Sigstore are not compared by here.
func (s sigstoreSigned) remap() ([]v1alpha1.IdentityRemap, bool) {
	switch s.identity.kind {
	case "MatchRepository":
		return nil, true
	case "ExactRepository":
		if len(s.scopes) != 1 {
			return nil, false
		}
		scope, signed := s.scopes[0], s.identity.repository
		if _, tag := cutTag(scope); tag != "" && strings.Contains(scope, "/") {
			return nil, false
		}
		i, j := strings.LastIndexByte(scope, '/'), strings.LastIndexByte(signed, '/')
		// The scope must be a repository: demand.exact denies what lies below it.
		if i < 0 || j < 0 || scope[i:] != signed[j:] || strings.HasPrefix(scope, "*") {
			return nil, false
		}
		if scope == signed {
			return nil, true
		}
		return []v1alpha1.IdentityRemap{{Prefix: scope[:i+1], SignedPrefix: signed[:j+1]}}, true
	}
	return nil, false
}
