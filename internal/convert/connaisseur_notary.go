package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

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
