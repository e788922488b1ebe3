package convert

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func mapKeys(m map[string]value) iter.Seq[string] { return maps.Keys(m) }

// cosign reads a validator of the type cosign.
func (k *connaisseur) cosign(v, with value, hosts []string) (demand, error) {
	chosen, ref, err := k.signers(v, with)
	if err != nil {
		return demand{}, err
	}
	everyone, _, err := k.signersOf(v)
	if err != nil {
		return demand{}, err
	}
	keyless := slices.ContainsFunc(everyone, func(s signer) bool { _, ok := s.at.peek("keyless"); return ok })
	log, logAt, err := with.flag(!k.old || hasField(v, "host"), "verifyInTransparencyLog")
	if err != nil {
		return demand{}, err
	}
	sct, sctAt, err := with.flag(true, "verifySCT")
	if err != nil {
		return demand{}, err
	}
	if !sct && keyless {
		k.note(sctAt, noteSCT)
	}
	if !log && slices.ContainsFunc(chosen, func(s signer) bool { _, ok := s.at.peek("keyless"); return ok }) {
		k.note(logAt, noteKeylessNoLog)
		return demand{denies: "an identity without a transparency log is not converted"}, nil
	}
	name := validatorName(v)
	if !log {
		name += "-without-log"
	}
	key := fmt.Sprintf("connaisseur/%s/%t/%t", validatorName(v), log, sct || !keyless)
	tr, err := k.objects.root(key, name, func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.Sigstore = &v1alpha1.SigstoreSpec{}
		if log {
			tr.Spec.Sigstore.TransparencyLog = v1alpha1.TransparencyLogRequire
		}
		if err := k.instance(v, tr, keyless, log, sct); err != nil {
			return err
		}
		for _, s := range everyone {
			if _, is := s.at.peek("keyless"); is && !log {
				continue
			}
			if err := k.cosignRole(s, tr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return demand{}, err
	}
	if err := k.registry(v, tr, hosts); err != nil {
		return demand{}, err
	}
	return k.threshold(with, tr, chosen, ref)
}

// signersOf returns every trust root of a validator.
func (k *connaisseur) signersOf(v value) ([]signer, string, error) {
	return k.signers(v, value{c: k.converter, file: v.file, path: v.path, name: "policy[].with", seen: v.seen,
		node: &yaml.Node{Kind: yaml.MappingNode, Line: v.node.Line, Content: []*yaml.Node{
			{Kind: yaml.ScalarNode, Value: "trustRoot"}, {Kind: yaml.ScalarNode, Value: "*"},
		}}})
}

func hasField(v value, name string) bool { _, ok := v.peek(name); return ok }

// threshold reads how many of the trust roots must have signed.
func (k *connaisseur) threshold(with value, tr *v1alpha1.TrustRoot, chosen []signer, ref string) (demand, error) {
	n, at, err := count(with, "threshold")
	if err != nil {
		return demand{}, err
	}
	required, err := with.texts("required")
	if err != nil {
		return demand{}, err
	}
	var roles []v1alpha1.RoleName
	for _, s := range chosen {
		roles = append(roles, k.role(s.at, tr.Name, tr.Name, s.name))
	}
	var d demand
	if ref != "*" {
		d.role(tr.Name, roles[0])
		if n > 1 || len(required) > 0 {
			return demand{}, at.fault("goes with trustRoot: \"*\"")
		}
		return d, nil
	}
	for _, name := range required {
		i := slices.IndexFunc(chosen, func(s signer) bool { return s.name == name })
		if i < 0 {
			return demand{}, with.fault("requires the trust root %q, which the validator has not", short(name))
		}
		d.role(tr.Name, roles[i])
	}
	switch {
	case n > len(roles):
		k.note(at, noteThreshold, len(roles))
		return demand{denies: "its threshold is above the number of its signers"}, nil
	case n == 0 && len(required) == 0:
		for _, role := range roles {
			d.role(tr.Name, role)
		}
	case n > len(required) && len(roles) > 1:
		d.role(tr.Name, roles...)
		if n > 1 {
			least := int32(n) //nolint:gosec // at most the number of roles
			d.roles[len(d.roles)-1].Threshold = &least
		}
	case n > len(required):
		d.role(tr.Name, roles[0])
	}
	return d, nil
}

// instance reads which Sigstore instance a validator trusts.
func (k *connaisseur) instance(v value, tr *v1alpha1.TrustRoot, keyless, log, sct bool) error {
	host, ok := v.get("host")
	var rekor string
	parts := map[string]string{}
	if ok && host.node.Kind == yaml.ScalarNode { // 2.x
		rekor = host.node.Value
	} else if ok {
		var err error
		if rekor, _, err = host.text("rekor"); err != nil {
			return err
		}
		for _, name := range []string{"rekorPubkey", "fulcioCert", "ctLogPubkey"} {
			s, at, err := host.text(name)
			if err != nil {
				return err
			}
			if s != "" {
				if parts[name], err = at.publicPEM(s); err != nil {
					return err
				}
			}
		}
		host.finish()
	}
	if !keyless && !log {
		return nil
	}
	private := rekor != "" && strings.Trim(strings.TrimPrefix(rekor, "https://"), "/") != "rekor.sigstore.dev"
	spec := tr.Spec.Sigstore
	complete := parts["rekorPubkey"] != "" &&
		(!keyless || parts["fulcioCert"] != "" && (parts["ctLogPubkey"] != "" || !sct))
	switch {
	case len(parts) == 0 && !private:
		spec.TrustedRoot = publicInstance()
	case complete:
		var cas, ct []string
		if keyless {
			cas = append(cas, parts["fulcioCert"])
			if parts["ctLogPubkey"] != "" {
				ct = append(ct, parts["ctLogPubkey"])
			}
		}
		root, err := k.customRoot(host, tr.Name, cas, []string{parts["rekorPubkey"]}, ct)
		if err != nil {
			return err
		}
		spec.TrustedRoot = root
	default:
		spec.TrustedRoot = k.unknownRoot(host, tr.Name)
	}
	return nil
}

// cosignRole adds the role of one trust root.
func (k *connaisseur) cosignRole(s signer, tr *v1alpha1.TrustRoot) error {
	role := v1alpha1.SigstoreRole{Name: k.role(s.at, tr.Name, tr.Name, s.name)}
	if keyless, ok := s.at.get("keyless"); ok {
		id, err := k.identity(keyless, "issuer", "issuerRegex", "subject", "subjectRegex")
		if err != nil {
			return err
		}
		role.Identities = append(role.Identities, id)
	} else if err := k.cosignKey(s, tr, &role); err != nil {
		return err
	}
	s.at.finish()
	tr.Spec.Sigstore.Roles = append(tr.Spec.Sigstore.Roles, role)
	return nil
}

// cosignKey reads a key: PEM, a Secret, or the address of a key management system.
func (k *connaisseur) cosignKey(s signer, tr *v1alpha1.TrustRoot, role *v1alpha1.SigstoreRole) error {
	key, at, err := s.at.text("key")
	if err != nil {
		return err
	}
	switch secret, inCluster := strings.CutPrefix(key, "k8s://"); {
	case key == "":
		return s.at.fault("has neither key nor keyless")
	case inCluster:
		_, name, _ := strings.Cut(secret, "/")
		source := v1alpha1.KeySource{Kind: "Secret", Name: v1alpha1.ObjectName(objectNameOf(name)), Key: "cosign.pub"}
		role.KeysFrom = append(role.KeysFrom, source)
		k.note(at, noteKeySecret, string(source.Name), k.options.Namespace, source.Key)
	case !strings.HasPrefix(strings.TrimSpace(key), "-----BEGIN"):
		role.KeysFrom = append(role.KeysFrom, k.keysToFill(at, tr.Name, string(role.Name), ".pub",
			"the public key in PEM, as cosign public-key --key prints it"))
	default:
		text, err := at.publicKeyPEM(key)
		if err != nil {
			return err
		}
		role.Keys = append(role.Keys, text)
	}
	return nil
}

// notation reads a validator of the type notation.
func (k *connaisseur) notation(v, with value, hosts []string) (demand, error) {
	chosen, ref, err := k.signers(v, with)
	if err != nil {
		return demand{}, err
	}
	level, levelAt, err := with.text("verificationLevel")
	if err != nil {
		return demand{}, err
	}
	times, timesAt, err := with.text("verifyTimestamp")
	if err != nil {
		return demand{}, err
	}
	revocation := v1alpha1.RevocationEnforce
	switch level {
	case "", "strict":
	case "permissive":
		revocation = v1alpha1.RevocationSkip
		k.note(levelAt, notePermissive)
	case "audit":
		revocation = v1alpha1.RevocationSkip
		k.note(levelAt, noteAudit)
	default:
		return demand{}, levelAt.fault("is none of strict, permissive and audit")
	}
	stamped := slices.ContainsFunc(chosen, func(s signer) bool { return hasField(s.at, "tsCert") })
	if stamped && revocation == v1alpha1.RevocationEnforce && times != "afterCertExpiry" {
		k.note(timesAt, noteTimestamps)
		return demand{denies: "that each signature has a timestamp is not converted"}, nil
	}
	name := validatorName(v)
	if ref != "*" && ref != "default" {
		name += "-" + ref
	}
	key := fmt.Sprintf("connaisseur/%s/%s/%s", validatorName(v), ref, revocation)
	tr, err := k.objects.root(key, name, func(tr *v1alpha1.TrustRoot) error {
		tr.Spec.Notation = &v1alpha1.NotationSpec{Revocation: revocation}
		for _, s := range chosen {
			if err := k.notationRole(s, tr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return demand{}, err
	}
	if err := k.registry(v, tr, hosts); err != nil {
		return demand{}, err
	}
	var roles []v1alpha1.RoleName
	for _, s := range chosen {
		roles = append(roles, k.role(s.at, tr.Name, tr.Name, s.name))
	}
	var d demand
	d.role(tr.Name, roles...)
	return d, nil
}

func (k *connaisseur) notationRole(s signer, tr *v1alpha1.TrustRoot) error {
	cert, at, err := s.at.text("cert")
	if err != nil {
		return err
	}
	text, err := at.publicPEM(cert)
	if err != nil {
		return err
	}
	times, err := caBundle[v1alpha1.TimestampBundle](s.at, "tsCert")
	if err != nil {
		return err
	}
	tr.Spec.Notation.TimestampAuthorities += times
	tr.Spec.Notation.Roles = append(tr.Spec.Notation.Roles, v1alpha1.NotationRole{
		Name: k.role(s.at, tr.Name, tr.Name, s.name), Certificates: []v1alpha1.PEM{v1alpha1.PEM(text)},
		Identities: []v1alpha1.CertificateSubject{"*"},
	})
	s.at.finish()
	return nil
}
