package notation

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// class is what copies of a signature have in common: the signature, its key, and for which roles
// it counts.
type class struct {
	signature [sha256.Size]byte
	by, roles string
	counts    bool
}

func (j *judgement) class() class {
	return class{signature: j.signature, by: j.by, roles: strings.Join(j.roles, " "), counts: j.counts()}
}

// shed drops the envelopes of signatures that are not by a certificate of a role, and of copies,
// each beyond bydigest.MaxForeign. Of copies it keeps the one that counts the longest, and then the
// smallest.
func (e *evidence) shed(c *collection) {
	best := map[class]int{}
	for i := range e.judged {
		j := &e.judged[i]
		if j.by == "" {
			continue
		}
		n, ok := best[j.class()]
		if have := &e.judged[n]; !ok || j.until.later(have.until) ||
			!have.until.later(j.until) && len(c.Signatures[i].Envelope) < len(c.Signatures[n].Envelope) {
			best[j.class()] = i
		}
	}
	c.Signatures = slices.Clone(c.Signatures)
	var foreign, copies bydigest.Foreign
	for i := range c.Signatures {
		s, j := &c.Signatures[i], &e.judged[i]
		size := int64(len(s.Envelope))
		switch {
		case s.Why != "" || s.Dropped || j.by == "" && j.fault != nil:
		case j.by == "" && !foreign.Keep(size):
			*s = kept{ID: s.ID, Why: j.why, Dropped: true}
			*j = judgement{why: j.why}
		case j.by != "" && best[j.class()] != i && !copies.Keep(size):
			if one := &e.judged[best[j.class()]]; j.fault != nil && one.fault != j.fault {
				e.faults = slices.DeleteFunc(e.faults, func(f *trust.Fault) bool { return f == j.fault })
			}
			*s = kept{ID: s.ID, Dropped: true, Copy: true}
			*j = judgement{copied: true}
		}
	}
}
