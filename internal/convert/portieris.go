package convert

import (
	"cmp"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// namespaceName is the label that every namespace has with its name.
const namespaceName = "kubernetes.io/metadata.name"

// repository is an entry of spec.repositories of Portieris, with what decides between several.
type repository struct {
	pattern string
	object  int // which object it is in
	index   int
}

// quality is how closely Portieris says that a pattern matches.
func (r repository) quality() int { return len(r.pattern) - strings.Count(r.pattern, "*") }

// wins reports whether r, and not other, holds for every image that both match.
func (r repository) wins(other repository) bool {
	if r.quality() != other.quality() {
		return r.quality() > other.quality()
	}
	return r.object == other.object && r.index < other.index
}

// portierisRules are the rules of one namespace, or of the whole cluster.
type portierisRules struct {
	at           value
	rules        []rule
	repositories []repository
}

func (c *converter) convertPortieris(documents []value) error {
	cluster := &portierisRules{}
	namespaces := map[string]*portierisRules{}
	for i, d := range documents {
		kind, _ := d.peek("kind")
		name, namespace, err := c.head(d, kind.node.Value == "ImagePolicy")
		if err != nil {
			return err
		}
		d.finish()
		into := cluster
		if kind.node.Value == "ImagePolicy" {
			if namespaces[namespace] == nil {
				namespaces[namespace] = &portierisRules{}
			}
			into, name = namespaces[namespace], namespace+"-"+name
		}
		spec, err := specOf(d)
		if err != nil {
			return err
		}
		if into.at.node == nil {
			into.at = d
		}
		if err := c.portierisPolicy(spec, name, i, into); err != nil {
			return err
		}
	}
	own := make([]string, 0, len(namespaces))
	for name := range namespaces {
		own = append(own, name)
	}
	slices.Sort(own)
	for _, name := range own {
		c.emitPortieris(namespaces[name], name+"-all-other-images", inNamespaces("In", name))
	}
	var where *v1alpha1.NamespaceSelector
	if len(own) > 64 {
		c.note(cluster.atOr(documents[0]), noteManyNamespaces)
	} else if len(own) > 0 {
		where = inNamespaces("NotIn", own...)
	}
	if cluster.at.node != nil {
		c.emitPortieris(cluster, "all-other-images", where)
		return nil
	}
	c.note(documents[0], noteNoClusterPolicy)
	c.emitPortieris(&portierisRules{at: documents[0]}, "all-other-images", where)
	return nil
}

func (p *portierisRules) atOr(d value) value {
	if p.at.node == nil {
		return d
	}
	return p.at
}

func inNamespaces(operator v1alpha1.SelectorOperator, names ...string) *v1alpha1.NamespaceSelector {
	r := v1alpha1.NamespaceRequirement{Key: namespaceName, Operator: operator}
	for _, name := range names {
		r.Values = append(r.Values, v1alpha1.LabelValue(name))
	}
	return &v1alpha1.NamespaceSelector{MatchExpressions: []v1alpha1.NamespaceRequirement{r}}
}

// emitPortieris writes the rules of a namespace. Portieris denies what no rule matches.
func (c *converter) emitPortieris(p *portierisRules, rest string, where *v1alpha1.NamespaceSelector) {
	for i := range p.rules {
		p.rules[i].where = where
		p.rules[i].beats = func(j int) bool {
			return j < len(p.repositories) && p.repositories[i].wins(p.repositories[j])
		}
	}
	c.emit(c.rest(p.rules, rest, p.at, where, "", "no repository of the policies of Portieris matches the image"))
}

func (c *converter) portierisPolicy(spec value, name string, object int, into *portierisRules) error {
	entries, err := spec.list("repositories")
	if err != nil {
		return err
	}
	spec.finish()
	for i, entry := range entries {
		pattern, at, err := entry.text("name")
		if err != nil {
			return err
		}
		s, ok := translate(pattern, dialect{})
		if pattern == "" || !ok {
			return at.fault("is no pattern that matches an image")
		}
		r := rule{at: at, name: name + "-" + ruleName(pattern), scope: s}
		policy, ok := entry.get("policy")
		if !ok {
			c.note(at, noteAllow)
			r.demand.allow = true
		} else if err := c.portierisDemand(policy, &r, name); err != nil {
			return err
		}
		entry.finish()
		into.rules = append(into.rules, r)
		into.repositories = append(into.repositories, repository{pattern: pattern, object: object, index: i})
	}
	return nil
}

func (c *converter) portierisDemand(policy value, r *rule, name string) error {
	mutate, _, err := policy.flag(true, "mutateImage")
	if err != nil {
		return err
	}
	if !mutate {
		r.pin = v1alpha1.PinNone
	}
	required := false
	if trust, ok := policy.get("trust"); ok {
		enabled, _, err := trust.flag(false, "enabled")
		if err != nil {
			return err
		}
		if enabled {
			required = true
			if err := c.portierisTrust(trust, r, name); err != nil {
				return err
			}
		} else {
			trust.get("signerSecrets")
			trust.get("trustServer")
		}
		trust.finish()
	}
	if simple, ok := policy.get("simple"); ok {
		signed, err := c.portierisSimple(simple, r, name)
		if err != nil {
			return err
		}
		required = required || signed
		simple.finish()
	}
	for _, field := range []string{"vulnerability", "va"} {
		if v, ok := policy.get(field); ok {
			if err := c.portierisVulnerability(v, r); err != nil {
				return err
			}
		}
	}
	policy.finish()
	if !required {
		c.note(policy, noteAllow)
		r.demand.allow = true
	}
	return nil
}

// portierisVulnerability reads the demand for a report about vulnerabilities.
func (c *converter) portierisVulnerability(v value, r *rule) error {
	inner := v
	if field, ok := v.get("ICCRVA"); ok {
		inner = field
	}
	enabled, at, err := inner.flag(false, "enabled")
	if err != nil {
		return err
	}
	inner.get("account")
	inner.finish()
	v.finish()
	if enabled {
		c.note(at, noteVulnerability)
		r.demand.gaps = append(r.demand.gaps, "the report of the Vulnerability Advisor")
	}
	return nil
}

// portierisTrust reads a demand for signatures of Docker Content Trust.
func (c *converter) portierisTrust(trust value, r *rule, name string) error {
	server, at, err := trust.text("trustServer")
	if err != nil {
		return err
	}
	if server == "" {
		at, server = trust, knownServer(hostsOf(r.scope))
	}
	secrets, err := trust.list("signerSecrets")
	if err != nil {
		return err
	}
	plain := strings.HasPrefix(server, "http://")
	if !strings.HasPrefix(server, "https://") && !plain || strings.ContainsAny(server, "@?# ") {
		c.note(at, noteTrustServer)
		r.demand.denies = "it is not known which Notary server has the signatures"
		for _, s := range secrets {
			s.get("name")
		}
		return nil
	}
	// The signers of one rule may not speak for another: a TrustRoot for each list of signers.
	key := "portieris/" + server
	for _, s := range secrets {
		secret, _, err := s.text("name")
		if err != nil {
			return err
		}
		s.finish()
		key += "/" + secret
	}
	tr, err := c.objects.root(key, cmp.Or(hostName(server), name), func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.Notary = &v1alpha1.NotarySpec{Server: strings.TrimSuffix(server, "/")}
		if plain {
			tr.Spec.Notary.PlainHTTP = v1alpha1.PlainHTTPAllow
		}
		source := c.objects.configMap(tr.Name+"-root", "root.pub",
			"the root key of the repositories in PEM; kubectl countersign trust pin REPOSITORY shows it", nil)
		tr.Spec.Notary.Root.KeysFrom = []v1alpha1.KeySource{source}
		c.note(at, noteRootPin, string(source.Name), source.Key)
		return nil
	})
	if err != nil {
		return err
	}
	if len(secrets) == 0 {
		r.demand.role(tr.Name, c.anySigner(trust, tr))
		return nil
	}
	for _, s := range secrets {
		if err := c.portierisSigner(s, tr, r); err != nil {
			return err
		}
	}
	return nil
}

// knownServer returns the Notary server that Portieris knows for registries.
func knownServer(hosts []string) string {
	for _, host := range hosts {
		switch {
		case strings.HasSuffix(host, "docker.io"):
			return "https://notary.docker.io"
		case strings.HasSuffix(host, "quay.io"):
			return "https://quay.io:443"
		}
	}
	return ""
}

// hostName returns the host of a URL, for a name.
func hostName(server string) string {
	_, rest, _ := strings.Cut(server, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, ":")
	return host
}

// portierisSigner adds the role of a signer, whose name and key are in a Secret.
func (c *converter) portierisSigner(s value, tr *v1alpha1.TrustRoot, r *rule) error {
	secret, at, err := s.text("name")
	if err != nil {
		return err
	}
	if secret == "" {
		return s.fault("names no Secret")
	}
	name := secret
	entry := v1alpha1.NotaryRole{}
	if given, ok := c.secrets[secret]; ok {
		signer, err := secretText(given, "name")
		if err != nil {
			return err
		}
		key, err := secretText(given, "publicKey")
		if err != nil {
			return err
		}
		text, err := given.publicKeyPEM(key)
		if err != nil {
			return err
		}
		name = signer
		entry.Keys = []v1alpha1.PEM{text}
	} else {
		source := v1alpha1.KeySource{Kind: "Secret", Name: v1alpha1.ObjectName(objectNameOf(secret)), Key: "publicKey"}
		entry.KeysFrom = []v1alpha1.KeySource{source}
		c.note(at, noteSignerSecret, secret, c.options.Namespace)
	}
	full := delegationOf(name)
	if full == "targets/releases" || full == "targets" || !validDelegation(full) {
		return at.fault("is of the signer %q, which is no delegation of one signer in Notary", short(name))
	}
	role := c.role(at, string(Portieris), tr.Name, strings.TrimPrefix(full, "targets/"))
	r.demand.role(tr.Name, role)
	if slices.ContainsFunc(tr.Spec.Notary.Roles, func(n v1alpha1.NotaryRole) bool { return n.Name == role }) {
		return nil
	}
	entry.Name = role
	if string(role) != strings.TrimPrefix(full, "targets/") {
		entry.Delegations = []v1alpha1.DelegationName{v1alpha1.DelegationName(full)}
	}
	tr.Spec.Notary.Roles = append(tr.Spec.Notary.Roles, entry)
	return nil
}

// secretText returns an entry of a Secret.
func secretText(secret value, key string) (string, error) {
	if data, ok := secret.peek("stringData"); ok {
		if entry, ok := data.peek(key); ok {
			return entry.node.Value, nil
		}
	}
	if data, ok := secret.peek("data"); ok {
		if entry, ok := data.peek(key); ok {
			decoded, err := decodeBase64(entry.node.Value)
			if err != nil {
				return "", entry.fault("is no base64")
			}
			return string(decoded), nil
		}
	}
	return "", secret.fault("has no entry %s", key)
}
