package notary

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Format builds Roots from the TrustRoots that have spec.notary.
type Format struct {
	// Clock returns the time for expiry checks. Nil: time.Now.
	Clock func() time.Time
	// Hosts bounds the requests to a server, over all trust roots.
	Hosts *registry.Hosts
	// Budget bounds the memory of decoding, over all trust roots. Nil: each has its own.
	Budget *budget.Budget
	// Account returns the credentials for a server whose TrustRoot refers to no Secret with some.
	// Nil: such a server gets none.
	Account Account
}

// Account returns the credentials for a server, by its URL; empty: there are none. The error is a
// *trust.Fault, and the TrustRoot is then not Ready.
type Account func(server string) (username, password string, err error)

var _ trust.Format = Format{}

// Name implements trust.Format.
func (Format) Name() string { return "Notary" }

// Of implements trust.Format.
func (Format) Of(spec *v1alpha1.TrustRootSpec) bool { return spec.Notary != nil }

// Refers implements trust.Format.
func (Format) Refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	n := spec.Notary
	all := slices.Clone(n.Root.KeysFrom)
	for _, one := range []*v1alpha1.KeySource{n.CABundleFrom, n.Root.CABundleFrom} {
		if one != nil {
			all = append(all, *one)
		}
	}
	for _, role := range n.Roles {
		all = append(all, role.KeysFrom...)
	}
	if n.CredentialsSecretRef != nil {
		username, password := credentials(n.CredentialsSecretRef)
		all = append(all, username, password)
	}
	if n.ClientCertificateSecretRef != nil {
		certificate, key := clientCertificate(n.ClientCertificateSecretRef)
		all = append(all, certificate, key)
	}
	return trust.Required(all...)
}

// clientCertificate returns the entries of the Secret with the client certificate.
func clientCertificate(ref *v1alpha1.SecretReference) (certificate, key v1alpha1.KeySource) {
	return v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.TLSCertKey},
		v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.TLSPrivateKeyKey}
}

// credentials returns the entries of the Secret with the credentials.
func credentials(ref *v1alpha1.SecretReference) (username, password v1alpha1.KeySource) {
	return v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.BasicAuthUsernameKey},
		v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.BasicAuthPasswordKey}
}

// Build implements trust.Format.
func (f Format) Build(tr *v1alpha1.TrustRoot, material trust.Material) (trust.Root, error) {
	cfg, err := f.config(tr, material)
	if err != nil {
		return nil, err
	}
	get, err := f.server(tr.Spec.Notary, material)
	if err != nil {
		return nil, err
	}
	root, err := New(cfg, get)
	if err != nil {
		return nil, err
	}
	field := "spec.notary.caBundle"
	if tr.Spec.Notary.CABundleFrom != nil {
		field += "From"
	}
	var notes []string
	for _, skipped := range get.Skipped() {
		notes = append(notes, fmt.Sprintf("%s: skipped %s", field, skipped))
	}
	root.notes = append(notes, root.notes...)
	return root, nil
}

// server returns the client of the Notary server.
func (f Format) server(spec *v1alpha1.NotarySpec, material trust.Material) (*registry.Client, error) {
	server := registry.Config{
		Server:        spec.Server,
		PlainHTTP:     spec.PlainHTTP == v1alpha1.PlainHTTPAllow,
		CABundle:      string(spec.CABundle),
		TokenServices: spec.TokenServices,
		Hosts:         f.Hosts,
	}
	if spec.CABundleFrom != nil {
		server.CABundle = material[*spec.CABundleFrom]
	}
	switch {
	case spec.CredentialsSecretRef != nil:
		username, password := credentials(spec.CredentialsSecretRef)
		server.Username, server.Password = oneLine(material[username]), oneLine(material[password])
	case f.Account != nil:
		var err error
		if server.Username, server.Password, err = f.Account(spec.Server); err != nil {
			return nil, err
		}
	}
	if spec.ClientCertificateSecretRef != nil {
		certificate, key := clientCertificate(spec.ClientCertificateSecretRef)
		server.ClientCertificate, server.ClientKey = material[certificate], material[key]
	}
	get, err := registry.New(server)
	if wrong, ok := errors.AsType[*registry.ClientCertificateError](err); ok {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "spec.notary.clientCertificateSecretRef (Secret %s): %w",
			spec.ClientCertificateSecretRef.Name, wrong)
	}
	if err != nil {
		return nil, fmt.Errorf("spec.notary: %w", err)
	}
	return get, nil
}

// oneLine returns a value of a Secret without line breaks at its end. A file that an editor or echo
// wrote ends with one, and no server accepts it as a part of the password.
func oneLine(value string) string { return strings.TrimRight(value, "\r\n") }

// config returns the Config of the spec and of the data that it references.
func (f Format) config(tr *v1alpha1.TrustRoot, material trust.Material) (Config, error) {
	spec := tr.Spec.Notary
	cfg := Config{Name: tr.Name, ExpiredGrace: tr.Spec.ExpiredGrace.Duration, Clock: f.Clock, Budget: f.Budget}
	var err error
	if cfg.Remaps, err = trust.NewRemaps(tr.Spec.IdentityRemap); err != nil {
		return cfg, err
	}
	cfg.RootKeys = pems("spec.notary.root", spec.Root.Keys, spec.Root.KeysFrom, material)
	for _, id := range spec.Root.KeyIDs {
		cfg.RootKeyIDs = append(cfg.RootKeyIDs, string(id))
	}
	cfg.RootCA = PEM{Field: "spec.notary.root.caBundle", Data: string(spec.Root.CABundle)}
	if from := spec.Root.CABundleFrom; from != nil {
		cfg.RootCA = PEM{Field: "spec.notary.root.caBundleFrom", Data: material[*from]}
	}
	for i, r := range spec.Roles {
		role := Role{Name: string(r.Name), Threshold: int(r.Threshold)}
		for _, d := range r.Delegations {
			role.Delegations = append(role.Delegations, string(d))
		}
		role.Keys = pems(fmt.Sprintf("spec.notary.roles[%d]", i), r.Keys, r.KeysFrom, material)
		cfg.Roles = append(cfg.Roles, role)
	}
	for _, id := range tr.Spec.RevokedKeys {
		cfg.RevokedKeys = append(cfg.RevokedKeys, string(id))
	}
	return cfg, nil
}

// pems joins inline keys and keys of Secrets and ConfigMaps, each with its origin.
func pems(field string, inline []v1alpha1.PEM, from []v1alpha1.KeySource, material trust.Material) []PEM {
	var all []PEM
	for i, p := range inline {
		all = append(all, PEM{Field: fmt.Sprintf("%s.keys[%d]", field, i), Data: string(p)})
	}
	for i, s := range from {
		origin := fmt.Sprintf("%s.keysFrom[%d] (%s %s, entry %s)", field, i, s.Kind, s.Name, s.Key)
		all = append(all, PEM{Field: origin, Data: material[s]})
	}
	return all
}
