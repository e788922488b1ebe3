package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// RootBuilder makes what the store holds of a TrustRoot.
type RootBuilder struct {
	// Reader reads Secrets and ConfigMaps of Namespace, the operator's own.
	Reader    client.Reader
	Namespace string
	Clock     clock.PassiveClock
	// Hosts bounds what is asked of a server under all trust roots.
	Hosts *registry.Hosts
	// Budget bounds what decoding takes up under all trust roots. Nil: each has its own.
	Budget *budget.Budget
}

// keyMaterial is what a TrustRoot refers to, by source.
type keyMaterial map[v1alpha1.KeySource]string

// hash tells one state of the material, or one fault in gathering it, from another.
func (m keyMaterial) hash(fault *trust.Fault) string {
	h := sha256.New()
	if fault != nil {
		fmt.Fprintf(h, "%q", fault.Error())
	}
	for _, source := range slices.SortedFunc(maps.Keys(m), compareSources) {
		fmt.Fprintf(h, "%q %q", source, m[source])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func compareSources(a, b v1alpha1.KeySource) int {
	return slices.Compare([]string{a.Kind, string(a.Name), a.Key}, []string{b.Kind, string(b.Name), b.Key})
}

// sources lists every entry of a Secret or ConfigMap that a TrustRoot refers to.
func sources(spec *v1alpha1.TrustRootSpec) []v1alpha1.KeySource {
	n := spec.Notary
	if n == nil {
		return nil
	}
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
	return all
}

func clientCertificate(ref *v1alpha1.SecretReference) (certificate, key v1alpha1.KeySource) {
	return v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.TLSCertKey},
		v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.TLSPrivateKeyKey}
}

func credentials(ref *v1alpha1.SecretReference) (username, password v1alpha1.KeySource) {
	return v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.BasicAuthUsernameKey},
		v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.BasicAuthPasswordKey}
}

// format names what a TrustRoot verifies.
func format(spec *v1alpha1.TrustRootSpec) string {
	if spec.Notary != nil {
		return "Notary"
	}
	return ""
}

// gather reads what the TrustRoot refers to. What is missing is a *trust.Fault, anything else an error of the API
// server.
func (b RootBuilder) gather(ctx context.Context, tr *v1alpha1.TrustRoot) (keyMaterial, error) {
	m := keyMaterial{}
	for _, source := range sources(&tr.Spec) {
		value, err := b.read(ctx, source)
		if err != nil {
			return m, err
		}
		m[source] = value
	}
	return m, nil
}

func (b RootBuilder) read(ctx context.Context, source v1alpha1.KeySource) (string, error) {
	key := client.ObjectKey{Namespace: b.Namespace, Name: string(source.Name)}
	var value string
	var found bool
	var err error
	switch source.Kind {
	case "Secret":
		var o corev1.Secret
		err = b.Reader.Get(ctx, key, &o)
		var data []byte
		data, found = o.Data[source.Key]
		value = string(data)
	case "ConfigMap":
		var o corev1.ConfigMap
		err = b.Reader.Get(ctx, key, &o)
		value, found = o.Data[source.Key]
	}
	switch {
	case apierrors.IsNotFound(err):
		return "", trust.NewFault(v1alpha1.ReasonReferenceNotFound, "%s %s does not exist; the trust root refers to its entry %q", source.Kind, key, source.Key)
	case err != nil:
		return "", fmt.Errorf("reading %s %s: %w", source.Kind, key, err)
	case !found:
		return "", trust.NewFault(v1alpha1.ReasonReferenceNotFound, "%s %s has no entry %q, to which the trust root refers", source.Kind, key, source.Key)
	}
	return value, nil
}

// build compiles a TrustRoot and what it refers to. What is wrong is in the result. This is where a further format
// would be added.
func (b RootBuilder) build(tr *v1alpha1.TrustRoot, material keyMaterial) store.Root {
	var built store.Root
	for i, m := range tr.Spec.IdentityRemap {
		for field, prefix := range map[string]string{"prefix": m.Prefix, "signedPrefix": m.SignedPrefix} {
			if built.Fault = checkPrefix(fmt.Sprintf("spec.identityRemap[%d].%s", i, field), prefix); built.Fault != nil {
				return built
			}
		}
		built.Remap = append(built.Remap, store.Remap{Prefix: m.Prefix, SignedPrefix: m.SignedPrefix})
	}
	if tr.Spec.Notary == nil {
		built.Fault = trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec: exactly one format must be set: notary")
		return built
	}
	root, notes, err := b.notary(tr, material)
	if err != nil {
		built.Fault = trust.AsFault(err, v1alpha1.ReasonInvalidSpec)
		return built
	}
	built.Notes = notes
	built.Root, built.Fingerprints, built.ExpiredGrace = root, root.Fingerprints(), tr.Spec.ExpiredGrace.Duration
	return built
}

// checkPrefix refuses what the name of no repository begins with: it would silently never apply.
func checkPrefix(field, prefix string) *trust.Fault {
	const rest = "a/b"
	ref, err := imageref.Parse(prefix + rest)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s: %w", field, err)
	}
	if read := strings.TrimSuffix(ref.Name(), rest); read != prefix {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s: %q is the same as %q in another spelling; write that", field, prefix, read)
	}
	return nil
}

// notary builds a trust root of the format, and notes what of its material does not count.
func (b RootBuilder) notary(tr *v1alpha1.TrustRoot, material keyMaterial) (root *notary.Root, notes []string, err error) {
	get, err := b.server(tr.Spec.Notary, material)
	if err != nil {
		return nil, nil, err
	}
	if root, err = notary.New(b.notaryConfig(tr, material), get); err != nil {
		return nil, nil, err
	}
	field := "spec.notary.caBundle"
	if tr.Spec.Notary.CABundleFrom != nil {
		field += "From"
	}
	for _, skipped := range get.Skipped() {
		notes = append(notes, fmt.Sprintf("%s: skipped %s", field, skipped))
	}
	return root, append(notes, root.Notes()...), nil
}

// server returns the client of a Notary server.
func (b RootBuilder) server(spec *v1alpha1.NotarySpec, material keyMaterial) (*registry.Client, error) {
	server := registry.Config{
		Server:        spec.Server,
		PlainHTTP:     spec.PlainHTTP == v1alpha1.PlainHTTPAllow,
		CABundle:      string(spec.CABundle),
		TokenServices: spec.TokenServices,
		Hosts:         b.Hosts,
	}
	if spec.CABundleFrom != nil {
		server.CABundle = material[*spec.CABundleFrom]
	}
	if spec.CredentialsSecretRef != nil {
		username, password := credentials(spec.CredentialsSecretRef)
		server.Username, server.Password = oneLine(material[username]), oneLine(material[password])
	}
	if spec.ClientCertificateSecretRef != nil {
		certificate, key := clientCertificate(spec.ClientCertificateSecretRef)
		server.ClientCertificate, server.ClientKey = material[certificate], material[key]
	}
	get, err := registry.New(server)
	if wrong, ok := errors.AsType[*registry.ClientCertificateError](err); ok {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "spec.notary.clientCertificateSecretRef (Secret %s): %w", spec.ClientCertificateSecretRef.Name, wrong)
	}
	if err != nil {
		return nil, fmt.Errorf("spec.notary: %w", err)
	}
	return get, nil
}

// oneLine is a value of a Secret without the line ends after it: whoever makes a Secret of a file
// that an editor or echo wrote has one there, and no server takes it for a part of the password.
func oneLine(value string) string { return strings.TrimRight(value, "\r\n") }

func (b RootBuilder) notaryConfig(tr *v1alpha1.TrustRoot, material keyMaterial) notary.Config {
	spec := tr.Spec.Notary
	cfg := notary.Config{Name: tr.Name, ExpiredGrace: tr.Spec.ExpiredGrace.Duration, Clock: b.Clock.Now, Budget: b.Budget}
	cfg.RootKeys = pems("spec.notary.root", spec.Root.Keys, spec.Root.KeysFrom, material)
	for _, id := range spec.Root.KeyIDs {
		cfg.RootKeyIDs = append(cfg.RootKeyIDs, string(id))
	}
	cfg.RootCA = notary.PEM{Field: "spec.notary.root.caBundle", Data: string(spec.Root.CABundle)}
	if from := spec.Root.CABundleFrom; from != nil {
		cfg.RootCA = notary.PEM{Field: "spec.notary.root.caBundleFrom", Data: material[*from]}
	}
	for i, r := range spec.Roles {
		role := notary.Role{Name: string(r.Name), Threshold: int(r.Threshold)}
		for _, d := range r.Delegations {
			role.Delegations = append(role.Delegations, string(d))
		}
		role.Keys = pems(fmt.Sprintf("spec.notary.roles[%d]", i), r.Keys, r.KeysFrom, material)
		cfg.Roles = append(cfg.Roles, role)
	}
	for _, id := range tr.Spec.RevokedKeys {
		cfg.RevokedKeys = append(cfg.RevokedKeys, string(id))
	}
	return cfg
}

// pems joins inline keys with those from elsewhere, each with the place where it was written.
func pems(field string, inline []v1alpha1.PEM, from []v1alpha1.KeySource, material keyMaterial) []notary.PEM {
	var all []notary.PEM
	for i, p := range inline {
		all = append(all, notary.PEM{Field: fmt.Sprintf("%s.keys[%d]", field, i), Data: string(p)})
	}
	for i, s := range from {
		place := fmt.Sprintf("%s.keysFrom[%d] (%s %s, entry %s)", field, i, s.Kind, s.Name, s.Key)
		all = append(all, notary.PEM{Field: place, Data: material[s]})
	}
	return all
}
