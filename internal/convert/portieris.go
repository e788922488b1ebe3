package convert

import (
	"cmp"
	"fmt"
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
	exact   bool
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
		p.rules[i].where, p.rules[i].alone = where, true
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
		at = trust
		for _, host := range hostsOf(r.scope) {
			switch {
			case strings.HasSuffix(host, "docker.io"):
				server = "https://notary.docker.io"
			case strings.HasSuffix(host, "quay.io"):
				server = "https://quay.io:443"
			}
		}
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

// portierisSimple reads a demand for signatures by GPG. It reports whether one is required.
func (c *converter) portierisSimple(simple value, r *rule, name string) (bool, error) {
	requirements, err := simple.list("requirements")
	if err != nil {
		return false, err
	}
	store, storeAt, err := simple.text("storeURL")
	if err != nil {
		return false, err
	}
	if _, at, err := simple.text("storeSecret"); err != nil {
		return false, err
	} else if hasField(simple, "storeSecret") {
		c.note(at, noteStoreSecret)
	}
	lookaside := c.lookaside(storeAt, store)
	required := false
	for _, q := range requirements {
		kind, at, err := q.text("type")
		if err != nil {
			return false, err
		}
		switch kind {
		case "insecureAcceptAnything":
		case "reject":
			required = true
			r.demand.denies = "the policy of Portieris rejects these images"
		case "signedBy":
			required = true
			if err := c.portierisSignedBy(q, r, name, lookaside); err != nil {
				return false, err
			}
		default:
			return false, at.fault("is none of signedBy, insecureAcceptAnything and reject")
		}
		q.finish()
	}
	return required, nil
}

func (c *converter) portierisSignedBy(q value, r *rule, name, lookaside string) error {
	secret, at, err := q.text("keySecret")
	if err != nil {
		return err
	}
	if secret == "" {
		return q.fault("has no keySecret")
	}
	if _, at, err := q.text("keySecretNamespace"); err != nil {
		return err
	} else if hasField(q, "keySecretNamespace") {
		c.note(at, noteKeyNamespace, c.options.Namespace)
	}
	identity, err := c.signedIdentity(q, map[string]v1alpha1.SignedIdentityType{
		"matchExact": v1alpha1.SignedIdentityMatchExact, "matchRepository": v1alpha1.SignedIdentityMatchRepository,
		"matchExactReference":  v1alpha1.SignedIdentityExactReference,
		"matchExactRepository": v1alpha1.SignedIdentityExactRepository,
		"remapIdentity":        v1alpha1.SignedIdentityRemapIdentity,
	})
	if err != nil {
		return err
	}
	tr, err := c.simpleSigning(name, lookaside, identity)
	if err != nil {
		return err
	}
	role := c.role(at, string(Portieris), tr.Name, secret)
	r.demand.role(tr.Name, role)
	if slices.ContainsFunc(tr.Spec.SimpleSigning.Roles, func(n v1alpha1.SimpleSigningRole) bool {
		return n.Name == role
	}) {
		return nil
	}
	entry := v1alpha1.SimpleSigningRole{Name: role}
	if given, ok := c.secrets[secret]; ok {
		key, err := secretText(given, "key")
		if err != nil {
			return err
		}
		if err := c.pgpKeys(given, &entry, tr.Name, []byte(key)); err != nil {
			return err
		}
	} else {
		source := v1alpha1.KeySource{Kind: "Secret", Name: v1alpha1.ObjectName(objectNameOf(secret)), Key: "key"}
		entry.KeysFrom = []v1alpha1.KeySource{source}
		c.note(at, noteKeySecret, secret, c.options.Namespace, "key")
	}
	tr.Spec.SimpleSigning.Roles = append(tr.Spec.SimpleSigning.Roles, entry)
	return nil
}

// simpleSigning returns the TrustRoot of a place of signatures and a rule for the name in them.
func (c *converter) simpleSigning(name, lookaside string, identity *v1alpha1.SignedIdentity,
) (*v1alpha1.TrustRoot, error) {
	key := fmt.Sprintf("simple/%s/%s", name, lookaside)
	if identity != nil {
		key += fmt.Sprintf("/%v", *identity)
	}
	return c.objects.root(key, name+"-gpg", func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.SimpleSigning = &v1alpha1.SimpleSigningSpec{Lookaside: lookaside, SignedIdentity: identity}
		return nil
	})
}

// lookaside returns the URL of a signature storage that the operator can read, or "".
func (c *converter) lookaside(at value, url string) string {
	if url == "" {
		return ""
	}
	if !strings.HasPrefix(url, "https://") || strings.ContainsAny(url, "@?# ") || len(url) > 512 {
		c.note(at, noteLookaside)
		return ""
	}
	return strings.TrimSuffix(url, "/")
}

// signedIdentity reads a rule for the name in a signature. Nil is matchRepoDigestOrExact.
func (c *converter) signedIdentity(v value, types map[string]v1alpha1.SignedIdentityType,
) (*v1alpha1.SignedIdentity, error) {
	field, ok := v.get("signedIdentity")
	if !ok {
		return nil, nil
	}
	kind, at, err := field.text("type")
	if err != nil {
		return nil, err
	}
	if kind == "" || kind == "matchRepoDigestOrExact" {
		field.finish()
		return nil, nil
	}
	identity := &v1alpha1.SignedIdentity{Type: types[kind]}
	if identity.Type == "" {
		return nil, at.fault("is no rule for the name in a signature")
	}
	for _, part := range []struct {
		of   v1alpha1.SignedIdentityType
		name string
		into *string
	}{
		{v1alpha1.SignedIdentityExactReference, "dockerReference", &identity.Reference},
		{v1alpha1.SignedIdentityExactRepository, "dockerRepository", &identity.Repository},
		{v1alpha1.SignedIdentityRemapIdentity, "prefix", &identity.Prefix},
		{v1alpha1.SignedIdentityRemapIdentity, "signedPrefix", &identity.SignedPrefix},
	} {
		s, _, err := field.text(part.name)
		if err != nil {
			return nil, err
		}
		if (s != "") != (part.of == identity.Type) {
			return nil, field.fault("of type %s needs %s, or must not have it", kind, part.name)
		}
		*part.into = s
	}
	field.finish()
	return identity, nil
}

// pgpKeys gives a role OpenPGP keys: armored ones in the TrustRoot, others in a ConfigMap.
func (c *converter) pgpKeys(at value, role *v1alpha1.SimpleSigningRole, root string, data []byte) error {
	armored := strings.TrimSpace(string(data))
	switch {
	case strings.Contains(armored, "PRIVATE KEY"):
		return at.fault("has a private key: remove it, and treat the key as stolen")
	case len(data) == 0:
		return at.fault("has no key")
	case strings.HasPrefix(armored, "-----BEGIN PGP PUBLIC KEY BLOCK-----") && len(armored) < maxInlinePEM:
		role.Keys = append(role.Keys, v1alpha1.OpenPGPKey(armored+"\n"))
	case data[0]&0x80 != 0 && openPGPSecret(data):
		return at.fault("has a private key: remove it, and treat the key as stolen")
	default:
		role.KeysFrom = append(role.KeysFrom, c.objects.configMap(root+"-"+string(role.Name)+"-key",
			objectNameOf(string(role.Name))+".gpg", "", data))
	}
	return nil
}

// openPGPSecret reports whether a binary OpenPGP packet is a secret key or a secret subkey (RFC
// 9580, section 5).
func openPGPSecret(data []byte) bool {
	tag := data[0] >> 2 & 0x0f
	if data[0]&0x40 != 0 {
		tag = data[0] & 0x3f
	}
	return tag == 5 || tag == 7
}
