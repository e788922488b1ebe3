package sigstore

import (
	"fmt"
	"maps"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxKeys bounds the distinct keys of a trust root: each signature is compared with all of them.
const maxKeys = 256

// role says which keys may sign for a role of a policy.
type role struct {
	name      string
	threshold int
	keys      []*key // distinct
}

// roles are the roles of a trust root, and all that may sign for any of them.
type roles struct {
	all     []role
	keys    []*key          // distinct, in the order of the roles
	revoked map[string]bool // IDs
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
			if k = byID[k.id]; !slices.Contains(compiled.keys, k) {
				compiled.keys = append(compiled.keys, k)
			}
		}
		if n := len(compiled.keys); n < compiled.threshold {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec,
				"%s.threshold: %d keys must sign, and the role has %d distinct keys, so it could never be proven",
				field,
				compiled.threshold, n)
		}
		r.all = append(r.all, compiled)
	}
	if len(r.keys) > maxKeys {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.sigstore.roles: %d distinct keys; at most %d may "+
			"be listed", len(r.keys), maxKeys)
	}
	for _, id := range spec.RevokedKeys {
		r.revoked[string(id)] = true
	}
	return r, nil
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

// signed returns which of a role's keys are among the keys that have signed, sorted. One key counts
// once, however often it has signed. Revoked keys do not count.
func (r *roles) signed(of *role, by map[string]bool) []string {
	ids := map[string]bool{}
	for _, k := range of.keys {
		if by[k.id] && !r.revoked[k.id] {
			ids[k.id] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// statements returns the roles of which enough keys have signed the digest, sorted.
func (r *roles) statements(digest string, by map[string]bool) []trust.Statement {
	var all []trust.Statement
	for i := range r.all {
		if keys := r.signed(&r.all[i], by); len(keys) >= r.all[i].threshold {
			all = append(all, trust.Statement{Digest: digest, Role: r.all[i].name, Keys: keys})
		}
	}
	slices.SortFunc(all, func(a, b trust.Statement) int { return compareRoles(a.Role, b.Role) })
	return all
}
