package notary

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"time"
)

// earliest returns the earlier of two times.
func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// latest returns the k-th latest time: until then at least k of them have not passed. It sorts
// times in place. k is from 1 to len(times).
func latest(times []time.Time, k int) time.Time {
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	return times[k-1]
}

// rawStatement is one statement before it is indexed.
type rawStatement struct {
	tag    string
	digest [sha256.Size]byte
	proof  *roleProof
}

// statements returns the statements of all roles, sorted by tag, digest and role.
func (m *metadata) statements() []rawStatement {
	roles := slices.Clone(m.roles)
	for name := range m.verified {
		if role, ok := m.ownRole(name); ok {
			roles = append(roles, mappedRole{role: role, delegations: []string{name}, threshold: 1})
		}
	}
	size := 0
	for _, s := range roles {
		for _, name := range s.delegations {
			if t := m.verified[name]; t != nil {
				size += len(t.targets)
			}
		}
	}
	out := make([]rawStatement, 0, size)
	for _, s := range roles {
		m.addStatements(s, func(tag string, digest [sha256.Size]byte, proof *roleProof) {
			out = append(out, rawStatement{tag, digest, proof})
		})
	}
	slices.SortFunc(out, func(a, b rawStatement) int {
		return cmp.Or(strings.Compare(a.tag, b.tag), bytes.Compare(a.digest[:], b.digest[:]),
			strings.Compare(a.proof.role, b.proof.role), b.proof.notAfter.Compare(a.proof.notAfter))
	})
	// The same digest with two lengths is one statement: the one that expires later.
	return slices.CompactFunc(out, func(a, b rawStatement) bool {
		return a.tag == b.tag && a.digest == b.digest && a.proof.role == b.proof.role
	})
}

// ownRole returns the role of a delegation's own name, unless spec.notary.roles lists that role.
func (m *metadata) ownRole(delegation string) (role string, ok bool) {
	role, ok = strings.CutPrefix(delegation, targetsRole+"/")
	return role, ok && !m.roleNames[role] && checkMappable(delegation) == nil
}

// hasRole reports whether a file counts for any role.
func (m *metadata) hasRole(name string) bool { return m.roleCount(name) > 0 }

// addStatements calls add for each target that one role has signed: a tag with the digest and
// length of its manifest, signed by the threshold of distinct keys over the delegations of the
// role.
func (m *metadata) addStatements(s mappedRole, add func(tag string, digest [sha256.Size]byte, proof *roleProof)) {
	var files []*signedTargets
	for _, name := range s.delegations {
		if t := m.verified[name]; t != nil {
			files = append(files, t)
		}
	}
	outcomes := map[string]roleOutcome{}
	addOrReject := func(what target, files []*signedTargets) {
		if v := s.prove(files, outcomes); v.proof != nil {
			add(what.tag, what.digest, v.proof)
		} else {
			m.reject(what, v.cause)
		}
	}
	if len(files) == 1 {
		for _, what := range files[0].targets {
			if files[0].allows(what.tag) {
				addOrReject(what, files)
			} else {
				m.reject(what, s.outsidePathsCause(files[0], outcomes))
			}
		}
		return
	}
	// Each list is sorted by tag, so a merge finds the targets of one tag without a map of all
	// tags.
	next := make([]int, len(files))
	for {
		tag, found := "", false
		for i, t := range files {
			if next[i] < len(t.targets) && (!found || t.targets[next[i]].tag < tag) {
				tag, found = t.targets[next[i]].tag, true
			}
		}
		if !found {
			return
		}
		var claims []claim
		for i, t := range files {
			if next[i] == len(t.targets) || t.targets[next[i]].tag != tag {
				continue
			}
			if what := t.targets[next[i]]; t.allows(tag) {
				claims = addClaim(claims, what, t)
			} else {
				m.reject(what, s.outsidePathsCause(t, outcomes))
			}
			next[i]++
		}
		for _, c := range claims {
			addOrReject(c.target, c.files)
		}
	}
}

// claim is a target, a tag with the digest and length of its manifest, and the files that list it.
type claim struct {
	target
	files []*signedTargets
}

// addClaim adds a file to the claim about a target, or a new claim.
func addClaim(claims []claim, what target, by *signedTargets) []claim {
	for i, c := range claims {
		if c.target == what {
			claims[i].files = append(claims[i].files, by)
			return claims
		}
	}
	return append(claims, claim{target: what, files: []*signedTargets{by}})
}

// roleOutcome is the proof that some files give for a role, or why they give none.
type roleOutcome struct {
	proof *roleProof
	cause *cause
}

// prove returns which keys prove the role by some files, and until when. If too few keys signed, it
// returns why. Only keys that signed count, not listed ones. A key that signed two files counts
// once, until the later expiry. outcomes caches the result by file names.
func (s mappedRole) prove(files []*signedTargets, outcomes map[string]roleOutcome) roleOutcome {
	id := files[0].name
	for _, t := range files[1:] {
		id += " " + t.name
	}
	if v, ok := outcomes[id]; ok {
		return v
	}
	until := map[string]time.Time{}
	for _, t := range files {
		for _, key := range t.signers {
			if (s.keys == nil || s.keys[key]) && (until[key].IsZero() || t.expires.After(until[key])) {
				until[key] = t.expires
			}
		}
	}
	v := roleOutcome{}
	if len(until) >= s.threshold {
		v.proof = &roleProof{
			role: s.role, keys: slices.Sorted(maps.Keys(until)),
			notAfter: latest(slices.Collect(maps.Values(until)), s.threshold),
		}
	} else {
		v.cause = s.thresholdCause(files, len(until))
	}
	outcomes[id] = v
	return v
}
