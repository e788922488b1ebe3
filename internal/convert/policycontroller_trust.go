package convert

import (
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// authoritySettings reads where the signatures of an authority are and what vouches for them.
func (c *converter) authoritySettings(a value) (s settings, carried bool, err error) {
	if s.repository, carried, err = c.source(a); err != nil || !carried {
		return s, false, err
	}
	format, formatAt, err := a.text("signatureFormat")
	if err != nil {
		return s, false, err
	}
	keyless, isKeyless := a.get("keyless")
	if format == "bundle" && !isKeyless {
		c.note(formatAt, noteBundleKey)
		return s, false, nil
	}
	ctlog, hasLog := a.get("ctlog")
	stamp, hasStamp := a.get("rfc3161timestamp")
	roots := map[string]bool{}
	if isKeyless {
		if err := c.fulcio(keyless, roots); err != nil {
			return s, false, err
		}
		s.log = v1alpha1.TransparencyLogRequire
		if ref, ok := keyless.peek("trustRootRef"); ok && !hasLog && !hasStamp && format != "bundle" {
			c.note(ref, noteKeylessNoLog)
			return s, false, nil
		}
	}
	if hasLog {
		if err := c.log(ctlog, roots); err != nil {
			return s, false, err
		}
		s.log = v1alpha1.TransparencyLogRequire
	}
	if hasStamp {
		ref, at, err := stamp.text("trustRootRef")
		if err != nil {
			return s, false, err
		}
		stamp.finish()
		if !isKeyless {
			c.note(stamp, noteKeyTimestamp)
			return s, false, nil
		}
		roots[ref] = true
		if ref == "" {
			return s, false, at.fault("has no trustRootRef")
		}
		s.log = v1alpha1.TransparencyLogIgnore
	}
	switch {
	case len(roots) > 1:
		s.unknown = true
	default:
		for name := range roots {
			s.root = name
		}
	}
	return s, true, nil
}

// source reads where the signatures are. It reports false where they are not read.
func (c *converter) source(a value) (repository string, carried bool, err error) {
	sources, err := a.list("source")
	if err != nil {
		return "", false, err
	}
	for i, source := range sources {
		if i > 0 {
			c.note(source, noteOneSource)
			continue
		}
		if repository, _, err = source.text("oci"); err != nil {
			return "", false, err
		}
		if field, ok := source.get("signaturePullSecrets"); ok {
			c.note(field, noteSignaturePull)
		}
		if field, ok := source.get("tagPrefix"); ok {
			c.note(field, noteTagPrefix)
			return "", false, nil
		}
		source.finish()
	}
	return repository, true, nil
}

// fulcio reads which CA of identities is trusted.
func (c *converter) fulcio(keyless value, roots map[string]bool) error {
	url, _, err := keyless.text("url")
	if err != nil {
		return err
	}
	ref, _, err := keyless.text("trustRootRef")
	if err != nil {
		return err
	}
	_, own := keyless.get("ca-cert")
	ignore, at, err := keyless.flag(false, "insecureIgnoreSCT")
	if err != nil {
		return err
	}
	if ignore {
		c.note(at, noteSCT)
	}
	switch {
	case ref != "":
		roots[ref] = true
	case own || url != "" && strings.TrimSuffix(url, "/") != "https://fulcio.sigstore.dev":
		roots["another instance"] = true
	default:
		roots["public"] = true
	}
	return nil
}

// log reads which transparency log is trusted.
func (c *converter) log(ctlog value, roots map[string]bool) error {
	url, _, err := ctlog.text("url")
	if err != nil {
		return err
	}
	ref, _, err := ctlog.text("trustRootRef")
	if err != nil {
		return err
	}
	ctlog.finish()
	switch {
	case ref != "":
		roots[ref] = true
	case url != "" && strings.TrimSuffix(url, "/") != "https://rekor.sigstore.dev":
		roots["another instance"] = true
	default:
		roots["public"] = true
	}
	return nil
}

// sigstoreTrustRoot returns the trusted root of a TrustRoot of the policy-controller.
func (c *converter) sigstoreTrustRoot(at value, name, ref string) (*v1alpha1.SigstoreTrustedRoot, error) {
	given, ok := c.sigstoreTR[ref]
	if !ok {
		return c.unknownRoot(at, name), nil
	}
	spec, err := specOf(given)
	if err != nil {
		return nil, err
	}
	spec.name = "TrustRoot"
	remote, ok := spec.get("remote")
	if !ok {
		return c.unknownRoot(spec, name), nil
	}
	mirror, mirrorAt, err := remote.text("mirror")
	if err != nil {
		return nil, err
	}
	root, rootAt, err := remote.binary("root")
	if err != nil {
		return nil, err
	}
	if len(root) == 0 || root[0] != '{' {
		return nil, rootAt.fault("is no root.json in base64")
	}
	if !strings.HasPrefix(mirror, "https://") || strings.ContainsAny(mirror, "@?# ") {
		return nil, mirrorAt.fault("is no https URL")
	}
	for _, field := range []string{"targets", "trustedRootTarget"} {
		if v, ok := remote.get(field); ok && v.node.Value != "targets" && v.node.Value != "trusted_root.json" {
			return c.unknownRoot(v, name), nil
		}
	}
	remote.finish()
	source := c.objects.configMap(name+"-tuf-root", "root.json", "", root)
	return &v1alpha1.SigstoreTrustedRoot{TUF: &v1alpha1.SigstoreTUF{Mirror: mirror, RootFrom: &source}}, nil
}

// keyRef reads a key. It reports false where another key would count.
func (c *converter) keyRef(key value, root string, role *v1alpha1.SigstoreRole) (bool, error) {
	if err := key.one("data", "secretRef", "kms"); err != nil {
		return false, err
	}
	data, at, err := key.text("data")
	if err != nil {
		return false, err
	}
	kms, kmsAt, err := key.text("kms")
	if err != nil {
		return false, err
	}
	secret, inSecret := key.get("secretRef")
	hash, hashAt, err := key.text("hashAlgorithm")
	if err != nil {
		return false, err
	}
	if hash != "" && hash != "sha256" {
		c.note(hashAt, noteHash)
		return false, nil
	}
	switch {
	case data != "":
		text, err := at.publicKeyPEM(data)
		if err != nil {
			return false, err
		}
		role.Keys = append(role.Keys, text)
	case inSecret:
		name, _, err := secret.text("name")
		if err != nil {
			return false, err
		}
		secret.get("namespace")
		secret.finish()
		source := v1alpha1.KeySource{Kind: "Secret", Name: v1alpha1.ObjectName(objectNameOf(name)), Key: "cosign.pub"}
		role.KeysFrom = append(role.KeysFrom, source)
		c.note(secret, noteKeySecret, string(source.Name), c.options.Namespace, source.Key)
	case kms != "":
		role.KeysFrom = append(role.KeysFrom, c.keysToFill(kmsAt, root, string(role.Name), ".pub",
			"the public key in PEM, as cosign public-key --key prints it"))
	}
	key.finish()
	return true, nil
}
