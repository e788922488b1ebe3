package sigstore

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/attestation"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
)

// maxKeys bounds the distinct keys of a trust root: each signature is compared with all of them.
const maxKeys = 256

// role says which keys and identities may sign for a role of a policy.
type role struct {
	name       string
	threshold  int
	keys       []*key // distinct
	identities *identity.List
	// rule says which attestations prove the role, of predicateType. Nil: signatures do.
	rule          *attestation.Rule
	predicateType string
}

// lists reports whether the role lists a key, by its ID.
func (r *role) lists(id string) bool {
	return slices.ContainsFunc(r.keys, func(k *key) bool { return k.id == id })
}

// roles are the roles of a trust root, and all that may sign for any of them.
type roles struct {
	all        []role
	keys       []*key          // distinct, in the order of the roles
	identified bool            // some role has identities
	revoked    map[string]bool // IDs
	id         string          // of all that decides whose signature counts
	types      []string        // of the predicates of attestations that any role needs, sorted
}

// newRoles compiles the roles of a TrustRoot. The error is a *trust.Fault and names the field.
func newRoles(spec *v1alpha1.TrustRootSpec, material trust.Material) (*roles, error) {
	r := &roles{revoked: map[string]bool{}}
	byID := map[string]*key{}
	for i := range spec.Sigstore.Roles {
		one, field := &spec.Sigstore.Roles[i], fmt.Sprintf("spec.sigstore.roles[%d]", i)
		compiled := role{name: string(one.Name), threshold: int(max(one.Threshold, 1))}
		for _, p := range pems(field, one, material) {
			k, err := parseKey(p.data)
			if err != nil {
				return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", p.field, err)
			}
			if byID[k.id] == nil {
				byID[k.id] = k
				r.keys = append(r.keys, k)
			}
			if k = byID[k.id]; !compiled.lists(k.id) {
				compiled.keys = append(compiled.keys, k)
			}
		}
		var err error
		if compiled.identities, err = identity.Compile(field+".identities", entries(one)); err != nil {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%w", err)
		}
		r.identified = r.identified || compiled.identities.Len() > 0
		if n := len(compiled.keys) + compiled.identities.Len(); n < compiled.threshold {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.threshold: %d keys and identities must sign, "+
				"and the role has %d distinct ones, so it could never be proven", field, compiled.threshold, n)
		}
		if err := compiled.attest(field, one, spec.Sigstore.TrustedRoot != nil); err != nil {
			return nil, err
		}
		if compiled.rule != nil && !slices.Contains(r.types, compiled.predicateType) {
			r.types = append(r.types, compiled.predicateType)
		}
		r.all = append(r.all, compiled)
	}
	slices.Sort(r.types)
	if len(r.keys) > maxKeys {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.sigstore.roles: %d distinct keys; at most %d may "+
			"be listed", len(r.keys), maxKeys)
	}
	for _, id := range spec.RevokedKeys {
		r.revoked[string(id)] = true
	}
	var err error
	r.id, err = r.identify(spec)
	return r, err
}

// identify returns the ID of the roles: what differs in any signer, revocation or type has another.
func (r *roles) identify(spec *v1alpha1.TrustRootSpec) (string, error) {
	type one struct {
		Role v1alpha1.SigstoreRole
		Keys []string
	}
	all := make([]one, len(r.all))
	for i := range r.all {
		all[i].Role = spec.Sigstore.Roles[i]
		for _, k := range r.all[i].keys {
			all[i].Keys = append(all[i].Keys, k.id)
		}
	}
	text, err := json.Marshal(map[string]any{"roles": all, "revoked": r.revoked})
	if err != nil {
		return "", trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.sigstore.roles: %w", err)
	}
	return hexSHA256(text), nil
}

// attest compiles the rule of a role that attestations prove. The error is a *trust.Fault.
func (r *role) attest(field string, of *v1alpha1.SigstoreRole, times bool) error {
	if of.Attestation == nil {
		return nil
	}
	field += ".attestation"
	spec := attestation.Spec{
		PredicateType: of.Attestation.PredicateType, Conditions: of.Attestation.Conditions,
		MaxAge: of.Attestation.MaxAge.Duration,
	}
	if spec.MaxAge != 0 && !times {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.maxAge: the age is that of a log or a timestamp "+
			"authority, and none is trusted: set spec.sigstore.trustedRoot", field)
	}
	rule, err := attestation.Compile(field, spec)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%w", err)
	}
	r.rule, r.predicateType = rule, spec.PredicateType
	return nil
}

// attesting returns the roles that attestations prove.
func (r *roles) attesting() iter.Seq[*role] {
	return func(yield func(*role) bool) {
		for i := range r.all {
			if r.all[i].rule != nil && !yield(&r.all[i]) {
				return
			}
		}
	}
}

// entries returns the listed identities of a role.
func entries(of *v1alpha1.SigstoreRole) []identity.Entry {
	all := make([]identity.Entry, 0, len(of.Identities))
	for _, i := range of.Identities {
		all = append(all, identity.Entry{
			Issuer: i.Issuer, IssuerRegExp: i.IssuerRegExp, Subject: i.Subject, SubjectRegExp: i.SubjectRegExp,
		})
	}
	return all
}

// keyPEM is a key with its origin, so that an error can name the field.
type keyPEM struct{ field, data string }

// pems joins inline keys and keys of Secrets and ConfigMaps.
func pems(field string, of *v1alpha1.SigstoreRole, material trust.Material) []keyPEM {
	all := make([]keyPEM, 0, len(of.Keys)+len(of.KeysFrom))
	for i, p := range of.Keys {
		all = append(all, keyPEM{field: fmt.Sprintf("%s.keys[%d]", field, i), data: string(p)})
	}
	for i, s := range of.KeysFrom {
		origin := fmt.Sprintf("%s.keysFrom[%d] (%s %s, entry %s)", field, i, s.Kind, s.Name, s.Key)
		all = append(all, keyPEM{field: origin, data: material[s]})
	}
	return all
}

// fingerprints returns the IDs of all keys, sorted.
func (r *roles) fingerprints() []string {
	ids := make([]string, 0, len(r.keys))
	for _, k := range r.keys {
		ids = append(ids, k.id)
	}
	slices.Sort(ids)
	return ids
}

// signer returns the key that has made a signature. Nil: none of the trust root has.
func (r *roles) signer(c *claim) *key {
	for _, k := range r.keys {
		if c.signedBy(k) {
			return k
		}
	}
	return nil
}

// known reports whether any role lists the signer of a signature.
func (r *roles) known(p *proof) bool {
	return slices.ContainsFunc(r.all, func(one role) bool { return one.known(p) })
}

// counts reports whether a signature counts for any role.
func (r *roles) counts(p *proof) bool {
	return slices.ContainsFunc(r.all, func(one role) bool {
		_, ok := one.signer(p)
		return ok
	})
}

// statements returns the roles of which enough keys and identities have signed the digest, sorted.
// Each key and each identity counts once, however often it has signed.
func (r *roles) statements(digest string, signatures []*proof) []trust.Statement {
	var all []trust.Statement
	for i := range r.all {
		one := &r.all[i]
		if one.rule != nil {
			continue // a signature is no attestation
		}
		var signers []identity.Signer
		for _, p := range signatures {
			if s, ok := one.signer(p); ok {
				signers = append(signers, s)
			}
		}
		counted, until, ok := identity.Quorum(signers, one.threshold, time.Time{})
		if !ok {
			continue
		}
		st := trust.Statement{Digest: digest, Role: one.name, NotAfter: until}
		for _, s := range counted {
			st.Keys = append(st.Keys, s.Key)
		}
		slices.Sort(st.Keys)
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b trust.Statement) int { return compareRoles(a.Role, b.Role) })
	return all
}
