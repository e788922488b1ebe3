package convert

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func (c *converter) convertContainers(d value) error {
	def, ok := d.get("default")
	if !ok {
		return d.fault("has no default, which policy.json must have")
	}
	var rules []rule
	var scopes []string
	add := func(name, scope string, v value) error {
		r := rule{at: v, name: name}
		r.scope = everywhereScope()
		if scope != "" {
			covered, ok := translateScope(scope)
			if !ok {
				return v.fault("is no scope that matches an image")
			}
			r.scope = covered
		}
		if err := c.requirements(v, name, scope, &r.demand); err != nil {
			return err
		}
		rules, scopes = append(rules, r), append(scopes, scope)
		return nil
	}
	general := def
	if transports, ok := d.get("transports"); ok {
		kinds, sections := transports.fields()
		for i, section := range sections {
			section.name = "transports.docker"
			if kinds[i] != "docker" {
				c.note(section, noteTransport)
				continue
			}
			names, entries := section.fields()
			for j, entry := range entries {
				entry.name = "transports.docker.*"
				if names[j] == "" {
					general = entry
					c.note(def, noteDefaultUnused)
					continue
				}
				if err := add(ruleName(names[j]), names[j], entry); err != nil {
					return err
				}
			}
		}
	}
	d.finish()
	general.name = "transports.docker.*"
	if err := add("all-other-images", "", general); err != nil {
		return err
	}
	for i := range rules {
		rules[i].beats = func(j int) bool {
			return scopes[i] != "" && (scopes[j] == "" || closer(scopes[i], scopes[j]))
		}
	}
	c.emit(rules)
	return nil
}

func everywhereScope() scope { return scope{patterns: []string{everything}} }

// requirements reads a list of requirements, all of which must be met.
func (c *converter) requirements(v value, name, scope string, d *demand) error {
	if v.node.Kind != yaml.SequenceNode {
		return v.fault("is no list of requirements")
	}
	if len(v.node.Content) == 0 {
		return v.fault("is empty: policy.json needs a requirement")
	}
	signed := false
	for i, node := range v.node.Content {
		q := v
		q.node, q.path, q.name = node, fmt.Sprintf("%s[%d]", v.path, i), v.name+"[]"
		if err := q.mapping(); err != nil {
			return err
		}
		kind, at, err := q.text("type")
		if err != nil {
			return err
		}
		switch kind {
		case "insecureAcceptAnything":
		case "reject":
			d.denies = "policy.json rejects these images"
		case "signedBy":
			signed = true
			lookaside, _, _ := c.storage(scope)
			err = c.signedBy(q, name, lookaside, d)
		case "sigstoreSigned":
			signed = true
			err = c.containersSigstore(q, name, scope, i, d)
			_, attachments, off := c.storage(scope)
			if !attachments {
				c.note(at, noteAttachments)
				d.denies = "registries.d does not let signatures of Sigstore be read for these images"
			}
			c.denyUnread(off)
		case "signedBaseLayer":
			q.get("baseLayerIdentity")
			c.note(at, noteBaseLayer)
			d.denies = "signedBaseLayer is not converted, and no image meets it"
		default:
			return at.fault("is none of insecureAcceptAnything, reject, signedBy, sigstoreSigned and signedBaseLayer")
		}
		if err != nil {
			return err
		}
		q.finish()
	}
	if !signed && d.denies == "" {
		c.note(v, noteAllow)
		d.allow = true
	}
	return nil
}

// keyName returns a name for the role of a key in a file.
func keyName(file string) string {
	base := path.Base(file)
	return strings.TrimSuffix(base, path.Ext(base))
}

// signedBy reads a demand for a signature by GPG.
func (c *converter) signedBy(q value, name, lookaside string, d *demand) error {
	kind, at, err := q.text("keyType")
	if err != nil {
		return err
	}
	if err := q.one("keyPath", "keyPaths", "keyData"); err != nil {
		return err
	}
	files, fileAt, err := files(q, "keyPath", "keyPaths")
	if err != nil {
		return err
	}
	data, dataAt, err := q.binary("keyData")
	if err != nil {
		return err
	}
	identity, err := c.signedIdentity(q, map[string]v1alpha1.SignedIdentityType{
		"matchExact": v1alpha1.SignedIdentityMatchExact, "matchRepository": v1alpha1.SignedIdentityMatchRepository,
		"exactReference":  v1alpha1.SignedIdentityExactReference,
		"exactRepository": v1alpha1.SignedIdentityExactRepository,
		"remapIdentity":   v1alpha1.SignedIdentityRemapIdentity,
	})
	if err != nil {
		return err
	}
	if kind != "" && kind != "GPGKeys" {
		c.note(at, noteKeyType)
		d.denies = "keys of the type " + short(kind) + " are not converted"
		return nil
	}
	tr, err := c.simpleSigning(name, lookaside, identity)
	if err != nil {
		return err
	}
	wanted := "signer"
	if len(files) > 0 {
		wanted = keyName(files[0])
	}
	entry := v1alpha1.SimpleSigningRole{Name: c.role(q, name, tr.Name, wanted)}
	for n, r := range tr.Spec.SimpleSigning.Roles {
		if r.Name == entry.Name { // another requirement with a key of this name
			entry.Name = c.role(q, name, tr.Name, fmt.Sprintf("%s-%d", wanted, n+2))
		}
	}
	for _, f := range files {
		source := c.keysToFill(fileAt, tr.Name, keyName(f), ".gpg", "the file "+short(f))
		entry.KeysFrom = append(entry.KeysFrom, source)
	}
	if len(files) == 0 {
		if err := c.pgpKeys(dataAt, &entry, tr.Name, data); err != nil {
			return err
		}
	}
	tr.Spec.SimpleSigning.Roles = append(tr.Spec.SimpleSigning.Roles, entry)
	d.role(tr.Name, entry.Name)
	return nil
}

// containersSigstore reads a demand for a signature of Sigstore.
func (c *converter) containersSigstore(q value, name, scope string, index int, d *demand) error {
	if err := q.one("keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"); err != nil {
		return err
	}
	s := sigstoreSigned{at: q, name: name, policy: name, role: "signer"}
	if scope != "" {
		s.scopes = []string{scope}
	}
	if index > 0 {
		s.name = fmt.Sprintf("%s-%d", name, index+1)
	}
	if err := c.containersKeys(q, &s); err != nil {
		return err
	}
	if err := c.containersRekor(q, &s); err != nil {
		return err
	}
	if pki, ok := q.get("pki"); ok {
		q.get("signedIdentity")
		c.note(pki, notePKI)
		d.denies = "certificates of an own PKI are not converted"
		return nil
	}
	if fulcio, ok := q.get("fulcio"); ok {
		if err := c.containersFulcio(fulcio, &s); err != nil {
			return err
		}
	}
	s.identity = openshiftIdentity{kind: "MatchRepoDigestOrExact"}
	if v, ok := q.get("signedIdentity"); ok {
		kind, at, err := v.text("type")
		if err != nil {
			return err
		}
		s.at = at
		switch kind {
		case "matchRepository":
			s.identity.kind = "MatchRepository"
		case "exactRepository":
			s.identity.kind = "ExactRepository"
			if s.identity.repository, _, err = v.text("dockerRepository"); err != nil {
				return err
			}
		default:
			s.identity.kind = short(kind)
			for _, field := range []string{"dockerReference", "prefix", "signedPrefix"} {
				v.get(field)
			}
		}
		v.finish()
	}
	return c.sigstoreSigned(s, d)
}

// files returns a field that is a path, or one that is a list of paths.
func files(q value, one, several string) ([]string, value, error) {
	file, at, err := q.text(one)
	if err != nil {
		return nil, at, err
	}
	all, err := q.texts(several)
	if file != "" {
		return append(all, file), at, err
	}
	if field, ok := q.peek(several); ok {
		at = field
	}
	return all, at, err
}

// datas returns a field in base64, or one that is a list of such.
func datas(q value, one, several string) ([]string, value, error) {
	data, at, err := q.binary(one)
	if err != nil {
		return nil, at, err
	}
	var all []string
	if len(data) > 0 {
		all = append(all, string(data))
	}
	entries, err := q.list(several)
	if err != nil {
		return nil, at, err
	}
	for _, entry := range entries {
		encoded, err := entry.string()
		if err != nil {
			return nil, at, err
		}
		decoded, err := decodeBase64(encoded)
		if err != nil {
			return nil, at, entry.fault("is no base64")
		}
		all, at = append(all, string(decoded)), entry
	}
	return all, at, nil
}

func (c *converter) containersKeys(q value, s *sigstoreSigned) error {
	paths, at, err := files(q, "keyPath", "keyPaths")
	if err != nil {
		return err
	}
	for _, f := range paths {
		s.role = keyName(paths[0])
		s.keysFrom = append(s.keysFrom, c.keysToFill(at, s.name, keyName(f), ".pub", "the file "+short(f)))
	}
	keys, at, err := datas(q, "keyData", "keyDatas")
	if err != nil {
		return err
	}
	for _, key := range keys {
		text, err := at.publicKeyPEM(key)
		if err != nil {
			return err
		}
		s.keys = append(s.keys, text)
	}
	return nil
}

func (c *converter) containersRekor(q value, s *sigstoreSigned) error {
	paths, _, err := files(q, "rekorPublicKeyPath", "rekorPublicKeyPaths")
	if err != nil {
		return err
	}
	s.unknown = s.unknown || len(paths) > 0
	keys, at, err := datas(q, "rekorPublicKeyData", "rekorPublicKeyDatas")
	if err != nil {
		return err
	}
	for _, key := range keys {
		text, err := at.publicPEM(key)
		if err != nil {
			return err
		}
		s.rekor = append(s.rekor, text)
	}
	return nil
}

func (c *converter) containersFulcio(fulcio value, s *sigstoreSigned) error {
	file, _, err := fulcio.text("caPath")
	if err != nil {
		return err
	}
	data, at, err := fulcio.binary("caData")
	if err != nil {
		return err
	}
	if len(data) > 0 {
		if s.fulcio, err = at.publicPEM(string(data)); err != nil {
			return err
		}
	}
	s.unknown = s.unknown || file != ""
	issuer, _, err := fulcio.text("oidcIssuer")
	if err != nil {
		return err
	}
	email, _, err := fulcio.text("subjectEmail")
	if err != nil {
		return err
	}
	if issuer == "" || email == "" || s.fulcio == "" && file == "" || len(s.rekor) == 0 && !s.unknown {
		return fulcio.fault("needs caPath or caData, oidcIssuer, subjectEmail, and a key of Rekor beside it")
	}
	fulcio.finish()
	s.identities = []v1alpha1.SigstoreIdentity{{Issuer: issuer, Subject: email}}
	return nil
}
