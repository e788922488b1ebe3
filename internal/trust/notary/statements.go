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

// latest returns the k-th latest of some times: until when at least k of them hold. It sorts times
// in place. k is from 1 to len(times).
func latest(times []time.Time, k int) time.Time {
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	return times[k-1]
}

// said is one statement before it is indexed.
type rawStatement struct {
	tag    string
	digest [sha256.Size]byte
	proof  *roleProof
}

// statements returns what the roles have signed, sorted by tag, digest and role.
func (m *metadata) statements() []rawStatement {
	speakers := slices.Clone(m.roles)
	for name := range m.verified {
		if role, ok := m.ownRole(name); ok {
			speakers = append(speakers, mappedRole{role: role, delegations: []string{name}, threshold: 1})
		}
	}
	most := 0
	for _, s := range speakers {
		for _, name := range s.delegations {
			if t := m.verified[name]; t != nil {
				most += len(t.targets)
			}
		}
	}
	out := make([]rawStatement, 0, most)
	for _, s := range speakers {
		m.addStatements(s, func(tag string, digest [sha256.Size]byte, by *roleProof) {
			out = append(out, rawStatement{tag, digest, by})
		})
	}
	slices.SortFunc(out, func(a, b rawStatement) int {
		return cmp.Or(strings.Compare(a.tag, b.tag), bytes.Compare(a.digest[:], b.digest[:]),
			strings.Compare(a.proof.role, b.proof.role), b.proof.notAfter.Compare(a.proof.notAfter))
	})
	// The same digest with two lengths is one statement: the one that holds longer.
	return slices.CompactFunc(out, func(a, b rawStatement) bool {
		return a.tag == b.tag && a.digest == b.digest && a.proof.role == b.proof.role
	})
}

// ownRole returns the role that a delegation speaks for by its name, where no role is mapped to
// others.
func (m *metadata) ownRole(delegation string) (role string, ok bool) {
	role, ok = strings.CutPrefix(delegation, targetsRole+"/")
	return role, ok && !m.roleNames[role] && checkMappable(delegation) == nil
}

// speaks reports whether the targets of a file count for any role.
func (m *metadata) hasRole(name string) bool { return m.roleCount(name) > 0 }

// speak says what one role has signed: a tag, with the digest and length of its manifest, on which
// the distinct keys of its delegations reach its threshold.
func (m *metadata) addStatements(s mappedRole, say func(tag string, digest [sha256.Size]byte, by *roleProof)) {
	var files []*signedTargets
	for _, name := range s.delegations {
		if t := m.verified[name]; t != nil {
			files = append(files, t)
		}
	}
	voices := map[string]roleOutcome{}
	speak := func(what target, files []*signedTargets) {
		if v := s.prove(files, voices); v.proof != nil {
			say(what.tag, what.digest, v.proof)
		} else {
			m.reject(what, v.cause)
		}
	}
	if len(files) == 1 {
		for _, what := range files[0].targets {
			if files[0].allows(what.tag) {
				speak(what, files)
			} else {
				m.reject(what, s.outsidePathsCause(files[0], voices))
			}
		}
		return
	}
	// Each list is sorted by tag, so what all of them say of one tag is found without a map of
	// everything.
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
				m.reject(what, s.outsidePathsCause(t, voices))
			}
			next[i]++
		}
		for _, c := range claims {
			speak(c.target, c.files)
		}
	}
}

// claim is one thing signed about a tag: the digest and length of its manifest, and the files that
// say so.
type claim struct {
	target
	files []*signedTargets
}

func addClaim(claims []claim, what target, by *signedTargets) []claim {
	for i, c := range claims {
		if c.target == what {
			claims[i].files = append(claims[i].files, by)
			return claims
		}
	}
	return append(claims, claim{target: what, files: []*signedTargets{by}})
}

// voiced is how a role says what some files say, or why it does not.
type roleOutcome struct {
	proof *roleProof
	cause *cause
}

// voice returns how the role says what some files say: by which keys, and until when. Where the
// keys do not reach the threshold it says why. Keys count by what they signed, not by being listed;
// a key in two files counts once, until the later expiry. The same files have the same voice, which
// is kept in voices.
func (s mappedRole) prove(files []*signedTargets, voices map[string]roleOutcome) roleOutcome {
	id := files[0].name
	for _, t := range files[1:] {
		id += " " + t.name
	}
	if v, ok := voices[id]; ok {
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
	voices[id] = v
	return v
}
