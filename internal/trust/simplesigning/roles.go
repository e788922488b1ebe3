package simplesigning

import (
	"fmt"
	"slices"
	"strings"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxKeys bounds the distinct keys of a trust root.
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
	revoked map[string]bool // fingerprints that spec.revokedKeys lists
}

// source of a key: its text, and the field that has it.
type keyring struct{ field, data string }

// newRoles compiles the roles of a TrustRoot. All copies of a key count as one, so that what one
// copy revokes is revoked for every role. The error is a *trust.Fault and names the field.
func newRoles(spec *v1alpha1.TrustRootSpec, material trust.Material) (*roles, error) {
	r := &roles{revoked: map[string]bool{}}
	for _, id := range spec.RevokedKeys {
		r.revoked[string(id)] = true
	}
	entities, fields, order := map[string]*openpgp.Entity{}, map[string]string{}, []string(nil)
	of := make([][]string, len(spec.SimpleSigning.Roles))
	for i := range spec.SimpleSigning.Roles {
		for _, ring := range keyrings(i, &spec.SimpleSigning.Roles[i], material) {
			read, err := readEntities(ring.data)
			if err != nil {
				return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", ring.field, err)
			}
			for _, e := range read {
				id := fingerprint(e.PrimaryKey)
				if have := entities[id]; have != nil {
					add(have, e)
				} else {
					entities[id], fields[id], order = e, ring.field, append(order, id)
				}
				if !slices.Contains(of[i], id) {
					of[i] = append(of[i], id)
				}
			}
		}
	}
	if len(order) > maxKeys {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec,
			"spec.simpleSigning.roles: %d distinct keys; at most %d may be listed", len(order), maxKeys)
	}
	byID := map[string]*key{}
	for _, id := range order {
		k, err := newKey(entities[id])
		if err != nil {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: the key %s %w", fields[id], id, err)
		}
		byID[id], r.keys = k, append(r.keys, k)
	}
	return r, r.addRoles(spec.SimpleSigning.Roles, of, byID)
}

func (r *roles) addRoles(spec []v1alpha1.SimpleSigningRole, of [][]string, byID map[string]*key) error {
	for i := range spec {
		one := role{name: string(spec[i].Name), threshold: int(max(spec[i].Threshold, 1))}
		for _, id := range of[i] {
			one.keys = append(one.keys, byID[id])
		}
		if n := len(one.keys); n < one.threshold {
			return trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.simpleSigning.roles[%d].threshold: %d keys must "+
				"sign, and the role has %d distinct primary keys, so it could never be proven", i, one.threshold, n)
		}
		r.all = append(r.all, one)
	}
	return nil
}

// keyrings joins inline keys and keys of Secrets and ConfigMaps.
func keyrings(role int, of *v1alpha1.SimpleSigningRole, material trust.Material) []keyring {
	all := make([]keyring, 0, len(of.Keys)+len(of.KeysFrom))
	field := fmt.Sprintf("spec.simpleSigning.roles[%d]", role)
	for i, k := range of.Keys {
		all = append(all, keyring{field: fmt.Sprintf("%s.keys[%d]", field, i), data: string(k)})
	}
	for i, s := range of.KeysFrom {
		origin := fmt.Sprintf("%s.keysFrom[%d] (%s %s, entry %s)", field, i, s.Kind, s.Name, s.Key)
		all = append(all, keyring{field: origin, data: material[s]})
	}
	return all
}

// fingerprints returns those of all primary keys, sorted.
func (r *roles) fingerprints() []string {
	ids := make([]string, 0, len(r.keys))
	for _, k := range r.keys {
		ids = append(ids, k.id)
	}
	slices.Sort(ids)
	return ids
}

// notes says which keys do not count at a time, and why.
func (r *roles) notes(now time.Time) []string {
	var all []string
	note := func(what, id, why string) {
		if why != "" {
			all = append(all, fmt.Sprintf("%s %s %s, and does not count", what, id, why))
		}
	}
	for _, k := range r.keys {
		if why := r.keyInvalid(k, now); why != "" {
			note("the key", k.id, why)
			continue
		}
		for _, s := range k.signers {
			if s.id != k.id && s.flagged {
				note(fmt.Sprintf("of the key %s the subkey", k.id), s.id, r.invalid(s, now))
			}
		}
	}
	return all
}

// keyInvalid says why no signature by a key counts at a time; empty: it may.
func (r *roles) keyInvalid(k *key, now time.Time) string {
	switch {
	case r.revoked[k.id]:
		return "is listed in spec.revokedKeys"
	case k.why != "":
		return k.why
	}
	return expired(k.until, now)
}

// invalid is keyInvalid for one signer of a key.
func (r *roles) invalid(s *signer, now time.Time) string {
	switch why := r.keyInvalid(s.of, now); {
	case why != "":
		return why
	case r.revoked[s.id]:
		return "is listed in spec.revokedKeys"
	case s.why != "":
		return s.why
	case !s.flagged:
		return "may not sign, by its flags"
	}
	return expired(s.until, now)
}

// expired says when something has expired; empty: it has not. As in the policy, what expires now
// has expired.
func expired(until, now time.Time) string {
	if until.IsZero() || now.Before(until) {
		return ""
	}
	return "has expired at " + until.UTC().Format(time.RFC3339)
}

// signer returns the signer that has made the signature of a message. Nil: no key of the trust root
// has. named says that a key has the ID in the signature, but has not made it.
func (r *roles) signer(m *message) (by *signer, named bool) {
	for _, k := range r.keys {
		for _, s := range k.signers {
			if !m.signature.CheckKeyIdOrFingerprint(s.public) {
				continue
			}
			if named = true; verifies(m, s.public) {
				return s, true
			}
		}
	}
	return nil, named
}

// verifies reports whether a key has made the signature of a message.
func verifies(m *message, public *packet.PublicKey) bool {
	h, err := m.signature.PrepareVerify()
	if err != nil {
		return false
	}
	if _, err := h.Write(m.content); err != nil {
		return false
	}
	return public.VerifySignature(h, m.signature) == nil
}

// statements returns the roles of which enough keys have signed the digest, sorted. until has the
// keys that have signed, and until when their signatures count. One key counts once, however often
// it and its subkeys have signed.
func (r *roles) statements(digest string, until map[string]time.Time) []trust.Statement {
	var all []trust.Statement
	for i := range r.all {
		one := &r.all[i]
		var ids []string
		var ends []time.Time
		for _, k := range one.keys {
			if end, ok := until[k.id]; ok {
				ids, ends = append(ids, k.id), append(ends, end)
			}
		}
		if len(ids) < one.threshold {
			continue
		}
		slices.Sort(ids)
		slices.SortFunc(ends, func(a, b time.Time) int { // the last to expire first
			switch {
			case a.Equal(b):
				return 0
			case later(a, b):
				return -1
			}
			return 1
		})
		all = append(all, trust.Statement{Digest: digest, Role: one.name, Keys: ids, NotAfter: ends[one.threshold-1]})
	}
	slices.SortFunc(all, func(a, b trust.Statement) int { return strings.Compare(a.Role, b.Role) })
	return all
}

// later reports whether the time of expiry a is after b. The zero time is never.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }
