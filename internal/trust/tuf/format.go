package tuf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"weak"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// defaultInterval is the default of spec.refreshInterval.
const defaultInterval = 5 * time.Minute

// Format builds Roots from the TrustRoots that have spec.tuf.
type Format struct {
	// Clock returns the time for expiry checks. Nil: time.Now.
	Clock func() time.Time
	// Hosts bounds the requests to a server, over all trust roots.
	Hosts *registry.Hosts
	// Budget bounds the memory of decoding, over all trust roots. Nil: each has its own.
	Budget *budget.Budget
}

var _ trust.Format = Format{}

// Name implements trust.Format.
func (Format) Name() string { return "TUF" }

// Of implements trust.Format.
func (Format) Of(spec *v1alpha1.TrustRootSpec) bool { return spec.TUF != nil }

// Refers implements trust.Format.
func (Format) Refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	var all []v1alpha1.KeySource
	for _, one := range []*v1alpha1.KeySource{spec.TUF.CABundleFrom, spec.TUF.RootFrom} {
		if one != nil {
			all = append(all, *one)
		}
	}
	for i := range spec.TUF.Roles {
		all = append(all, spec.TUF.Roles[i].KeysFrom...)
	}
	if ref := spec.TUF.CredentialsSecretRef; ref != nil {
		username, password := credentials(ref)
		all = append(all, username, password)
	}
	return trust.Required(all...)
}

// credentials returns the entries of the Secret with the credentials.
func credentials(ref *v1alpha1.SecretReference) (username, password v1alpha1.KeySource) {
	return v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.BasicAuthUsernameKey},
		v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: corev1.BasicAuthPasswordKey}
}

// oneLine returns a value of a Secret without line breaks at its end, with which many tools write
// files.
func oneLine(value string) string { return strings.TrimRight(value, "\r\n") }

// Build implements trust.Format.
func (f Format) Build(tr *v1alpha1.TrustRoot, material trust.Material) (trust.Root, error) {
	spec := tr.Spec.TUF
	r := &Root{
		grace: max(tr.Spec.ExpiredGrace.Duration, 0), epoch: epochOf(tr), now: f.Clock,
		interval:     cmp.Or(tr.Spec.RefreshInterval.Duration, defaultInterval),
		repositories: map[string]weak.Pointer[repository]{},
	}
	if r.now == nil {
		r.now = time.Now
	}
	if f.Budget == nil {
		f.Budget = budget.New(budget.Default)
	}
	var err error
	if r.remaps, err = trust.NewRemaps(tr.Spec.IdentityRemap); err != nil {
		return nil, err
	}
	if r.location, err = newLocation(spec.Server); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.tuf.server: %w", err)
	}
	if r.layout, err = newLayout(spec.TargetPath); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.tuf.targetPath: %w", err)
	}
	if !r.location.perRepository && !r.layout.bindsRepository() {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.tuf.targetPath: it must contain {repository} "+
			"where server does not: otherwise a signature on one image would count for the same tag of every other")
	}
	if r.roles, err = newRoles(spec.Roles, material); err != nil {
		return nil, err
	}
	files, err := f.server(r.location.server, spec, material)
	if err != nil {
		return nil, fmt.Errorf("spec.tuf: %w", err)
	}
	field := "spec.tuf.caBundle"
	if spec.CABundleFrom != nil {
		field += "From"
	}
	for _, skipped := range files.Skipped() {
		r.notes = append(r.notes, fmt.Sprintf("%s: skipped %s", field, skipped))
	}
	r.get = files
	return r, r.pin(spec, tr.Spec.RevokedKeys, f.Budget, material)
}

// epochOf returns what distinguishes the values of the annotation that makes the operator forget
// the versions seen.
func epochOf(tr *v1alpha1.TrustRoot) string {
	if value := tr.Annotations[v1alpha1.AnnotationForgetVersions]; value != "" {
		return value
	}
	return tr.Status.LastHandledForgetVersions
}

// server returns the client of the file server.
func (f Format) server(url string, spec *v1alpha1.TUFSpec, material trust.Material) (*registry.Files, error) {
	server := registry.Config{Server: url, CABundle: string(spec.CABundle), Hosts: f.Hosts}
	if spec.CABundleFrom != nil {
		server.CABundle = material[*spec.CABundleFrom]
	}
	if spec.CredentialsSecretRef != nil {
		username, password := credentials(spec.CredentialsSecretRef)
		server.Username, server.Password = oneLine(material[username]), oneLine(material[password])
	}
	return registry.NewFiles(server)
}

// pin sets the pinned root.
func (r *Root) pin(spec *v1alpha1.TUFSpec, revoked []v1alpha1.KeyID, decoding *budget.Budget,
	material trust.Material) error {
	field, root := "spec.tuf.root", spec.Root
	if spec.RootFrom != nil {
		field, root = origin("spec.tuf.rootFrom", *spec.RootFrom), material[*spec.RootFrom]
	}
	r.config = tufrepo.Config{
		Name: r.location.server, Root: []byte(root), ExpiredGrace: r.grace, Budget: decoding, Clock: r.now,
	}
	for _, id := range revoked {
		r.config.RevokedKeys = append(r.config.RevokedKeys, string(id))
	}
	client, err := tufrepo.New(r.config, r.get)
	if err != nil {
		fault := trust.AsFault(err, v1alpha1.ReasonInvalidKey)
		return fault.Within("%s: %w", field, fault)
	}
	r.pinned = client.RootKeys()
	return nil
}

// newRoles compiles spec.tuf.roles. The error is a *trust.Fault and names the field.
func newRoles(spec []v1alpha1.TUFRole, material trust.Material) (roles, error) {
	all := roles{}
	for i := range spec {
		one, field := &spec[i], fmt.Sprintf("spec.tuf.roles[%d]", i)
		r := mappedRole{name: string(one.Name), threshold: int(max(one.Threshold, 1)), listed: len(one.Delegations) > 0}
		for _, d := range one.Delegations {
			r.delegations = append(r.delegations, string(d))
		}
		if !r.listed {
			r.delegations = []string{r.name}
		}
		if _, twice := all[r.name]; twice || r.name == "" {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.name: %q is empty or used twice", field, r.name)
		}
		slices.Sort(r.delegations)
		r.delegations = slices.Compact(r.delegations)
		for at, text := range keyTexts(field, one, material) {
			fingerprint, err := pinnedKey(text)
			if err != nil {
				return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", at, err)
			}
			if r.keys == nil {
				r.keys = map[string]bool{}
			}
			r.keys[fingerprint] = true
		}
		if r.keys != nil && len(r.keys) < r.threshold {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec,
				"%s.threshold: %d keys must sign, and the role has %d distinct keys, so it could never be proven",
				field, r.threshold, len(r.keys))
		}
		all[r.name] = r
	}
	return all, nil
}

// keyTexts returns inline keys and keys of Secrets and ConfigMaps, by their origin.
func keyTexts(field string, of *v1alpha1.TUFRole, material trust.Material) map[string]string {
	all := map[string]string{}
	for i, p := range of.Keys {
		all[fmt.Sprintf("%s.keys[%d]", field, i)] = string(p)
	}
	for i, s := range of.KeysFrom {
		all[origin(fmt.Sprintf("%s.keysFrom[%d]", field, i), s)] = material[s]
	}
	return all
}

// origin names a field with the entry that it refers to.
func origin(field string, s v1alpha1.KeySource) string {
	return fmt.Sprintf("%s (%s %s, entry %s)", field, s.Kind, s.Name, s.Key)
}
