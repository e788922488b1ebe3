package notary

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// earliest returns the earlier of two times.
func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// latest returns the k-th latest of some times: until when at least k of them hold. It sorts times in place. k is from
// 1 to len(times).
func latest(times []time.Time, k int) time.Time {
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	return times[k-1]
}

// claim is what counts as one thing signed: a tag, and the digest and length of its manifest.
type claim struct {
	tag string
	target
}

// statements returns what the roles have signed, sorted by tag, digest and role.
func (m *metadata) statements() []trust.Statement {
	var out []trust.Statement
	for _, s := range m.roles {
		out = append(out, m.spoken(s)...)
	}
	for name := range m.verified {
		role, ok := strings.CutPrefix(name, targetsRole+"/")
		if ok && !m.named[role] && checkSpeaker(name) == nil {
			out = append(out, m.spoken(speaker{role: role, delegations: []string{name}, threshold: 1})...)
		}
	}
	slices.SortFunc(out, func(a, b trust.Statement) int {
		return cmp.Or(strings.Compare(a.Tag, b.Tag), strings.Compare(a.Digest, b.Digest), strings.Compare(a.Role, b.Role), b.NotAfter.Compare(a.NotAfter))
	})
	// The same digest with two lengths is one statement: the one that holds longer.
	return slices.CompactFunc(out, func(a, b trust.Statement) bool {
		return a.Tag == b.Tag && a.Digest == b.Digest && a.Role == b.Role
	})
}

// spoken returns what one role has signed: a claim on which the distinct keys of its delegations reach its threshold.
// Keys count by what they signed, not by being listed; a key in two delegations counts once, until the later expiry.
func (m *metadata) spoken(s speaker) []trust.Statement {
	claims := map[claim]map[string]time.Time{}
	for _, name := range s.delegations {
		t := m.verified[name]
		if t == nil {
			continue
		}
		for tag, target := range t.targets {
			if !t.allows(tag) {
				continue
			}
			c := claim{tag: tag, target: target}
			for _, key := range t.signers {
				if s.keys != nil && !s.keys[key] {
					continue
				}
				if claims[c] == nil {
					claims[c] = map[string]time.Time{}
				}
				if t.expires.After(claims[c][key]) {
					claims[c][key] = t.expires
				}
			}
		}
	}
	var out []trust.Statement
	for c, keys := range claims {
		if len(keys) < s.threshold {
			continue
		}
		out = append(out, trust.Statement{
			Digest: c.digest, Tag: c.tag, Role: s.role,
			Keys:     slices.Sorted(maps.Keys(keys)),
			NotAfter: latest(slices.Collect(maps.Values(keys)), s.threshold),
		})
	}
	return out
}
