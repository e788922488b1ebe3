package simplesigning

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// class is what copies of a signature have in common: who has signed what, and when.
type class struct {
	signer  string
	content [sha256.Size]byte
	made    time.Time
	counts  bool
}

func (j *judgement) class() class {
	return class{signer: j.signer, content: j.content, made: j.made, counts: j.why == ""}
}

// shed drops the data of signatures that do not count, and of copies, each beyond
// bydigest.MaxForeign. Of copies it keeps the one that expires last, and then the smallest. The
// next fetch brings them again.
func (e *evidence) shed(c *collection) {
	best := map[class]int{}
	for i := range e.judged {
		j := &e.judged[i]
		if j.by == "" {
			continue
		}
		n, ok := best[j.class()]
		if have := &e.judged[n]; !ok || later(j.until, have.until) ||
			!later(have.until, j.until) && len(c.Signatures[i].Data) < len(c.Signatures[n].Data) {
			best[j.class()] = i
		}
	}
	c.Signatures = slices.Clone(c.Signatures)
	var foreign, copies bydigest.Foreign
	for i := range c.Signatures {
		s, j := &c.Signatures[i], &e.judged[i]
		size := int64(len(s.Data))
		switch {
		case s.Why != "" || s.Dropped || j.fault:
		case j.by == "" && !foreign.Keep(size):
			why := j.why
			if j.unknown {
				why = "is by a key that no role of this trust root lists"
			}
			*s = kept{Name: s.Name, Why: why, Dropped: true}
			*j = judgement{name: s.Name, why: why}
		case j.by != "" && best[j.class()] != i && !copies.Keep(size):
			*s = kept{Name: s.Name, Dropped: true}
			*j = judgement{name: s.Name, copied: true}
		}
	}
}
