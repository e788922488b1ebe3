package tuf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const (
	targetsRole  = "targets"
	digestPrefix = "sha256:"
)

// mappedRole says what proves a role of a policy.
type mappedRole struct {
	name        string
	delegations []string // sorted
	threshold   int
	keys        map[string]bool // fingerprints of the keys that count; nil: any
	listed      bool            // in spec.tuf.roles: otherwise it is the delegation of its name
}

// roles are the roles that spec.tuf.roles lists, by name.
type roles map[string]mappedRole

// named returns a role, listed or not.
func (all roles) named(name string) mappedRole {
	if r, ok := all[name]; ok {
		return r
	}
	return mappedRole{name: name, delegations: []string{name}, threshold: 1}
}

// counts reports whether a signature is by a delegation of the role. The delegation of an unlisted
// role must be one of targets: whoever holds another delegation can delegate to any name. The role
// targets proves no role but where it is listed.
func (r *mappedRole) counts(s *tufrepo.Signed) bool {
	return slices.Contains(r.delegations, s.Role) && (r.listed || s.Role != targetsRole && s.By == targetsRole)
}

// claim is a digest, with the keys of a role that have signed it.
type claim struct {
	digest string               // in hexadecimal
	until  map[string]time.Time // by key ID, until when its signature counts
	ids    map[string]string    // key ID by fingerprint: a key counts once, however it is listed
	other  []string             // IDs of keys that have signed and are not pinned
	files  []string
}

// claims returns the digests that delegations of the role have signed for one path.
func (r *mappedRole) claims(signed []tufrepo.Signed) []*claim {
	var all []*claim
	for i := range signed {
		s := &signed[i]
		if s.SHA256 == "" || !r.counts(s) {
			continue
		}
		at := slices.IndexFunc(all, func(c *claim) bool { return c.digest == s.SHA256 })
		if at < 0 {
			at = len(all)
			all = append(all, &claim{digest: s.SHA256, until: map[string]time.Time{}, ids: map[string]string{}})
		}
		all[at].add(r, s)
	}
	return all
}

// signers returns the keys of a signed file that count as signers. Whoever signs for a role chooses
// the keys of its bins. Where no key is pinned, those that have not signed for the role itself
// count together as one that has.
func (r *mappedRole) signers(s *tufrepo.Signed) []tufrepo.Key {
	if r.keys != nil || s.File == s.Role {
		return s.Keys
	}
	both := slices.DeleteFunc(slices.Clone(s.Keys), func(k tufrepo.Key) bool {
		return !slices.ContainsFunc(s.Owners, func(o tufrepo.Key) bool { return o.Fingerprint == k.Fingerprint })
	})
	if len(both) == 0 {
		return s.Owners[:min(len(s.Owners), 1)]
	}
	return both
}

// add adds the keys of a signed file. A key that has signed two files counts once, until the later
// expiry.
func (c *claim) add(r *mappedRole, s *tufrepo.Signed) {
	if !slices.Contains(c.files, s.File) {
		c.files = append(c.files, s.File)
	}
	for _, k := range r.signers(s) {
		if r.keys != nil && !r.keys[k.Fingerprint] {
			c.other = append(c.other, k.ID)
			continue
		}
		id, known := c.ids[k.Fingerprint]
		if !known {
			id = k.ID
			c.ids[k.Fingerprint] = id
		}
		if s.NotAfter.After(c.until[id]) {
			c.until[id] = s.NotAfter
		}
	}
}

// proves reports whether enough keys have signed.
func (c *claim) proves(r *mappedRole) bool { return len(c.until) >= r.threshold }

// statement returns what the claim proves. It counts as long as enough of the signatures do.
func (c *claim) statement(r *mappedRole, tag string) trust.Statement {
	ids, ends := make([]string, 0, len(c.until)), make([]time.Time, 0, len(c.until))
	for id, end := range c.until {
		ids, ends = append(ids, id), append(ends, end)
	}
	slices.Sort(ids)
	slices.SortFunc(ends, func(a, b time.Time) int { return b.Compare(a) })
	return trust.Statement{
		Digest: digestPrefix + c.digest, Tag: tag, Role: r.name, Keys: ids, NotAfter: ends[r.threshold-1],
	}
}

// why says why the claim does not prove the role.
func (c *claim) why(r *mappedRole) string {
	if len(c.until) == 0 && len(c.other) > 0 {
		return fmt.Sprintf("by key %s, which is not pinned for role %q (administrators: spec.tuf.roles[].keys of the "+
			"TrustRoot)", short(c.other[0]), r.name)
	}
	return fmt.Sprintf("which is %d of the %d keys that role %q needs", len(c.until), r.threshold, r.name)
}

// statements returns what the signatures on one path prove, sorted. The delegations of targets
// speak for the roles of their names, if those are not listed.
func (all roles) statements(signed []tufrepo.Signed, tag string) []trust.Statement {
	var out []trust.Statement
	add := func(r mappedRole) {
		for _, c := range r.claims(signed) {
			if c.proves(&r) {
				out = append(out, c.statement(&r, tag))
			}
		}
	}
	for _, r := range all {
		add(r)
	}
	seen := map[string]bool{}
	for i := range signed {
		name := signed[i].Role
		if _, listed := all[name]; listed || seen[name] {
			continue
		}
		seen[name] = true
		add(all.named(name))
	}
	slices.SortFunc(out, compareStatements)
	return out
}

// compareStatements orders by digest, role and tag.
func compareStatements(a, b trust.Statement) int {
	return cmp.Or(strings.Compare(a.Digest, b.Digest), strings.Compare(a.Role, b.Role), strings.Compare(a.Tag, b.Tag))
}

// short returns the beginning of a key's ID.
func short(id string) string { return id[:min(len(id), 12)] }
