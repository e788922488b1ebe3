package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

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
