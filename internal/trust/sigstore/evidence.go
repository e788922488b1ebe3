package sigstore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxRejections bounds the rejections that a denial can show.
	maxRejections = 16
	// shortID is how much of a key's ID messages show, in digits.
	shortID = 12
)

// evidence is what was verified about one digest. It implements trust.Evidence.
type evidence struct {
	digest     string
	roles      *roles // with which it was verified
	statements []trust.Statement
	judged     []judgement // one for each signature of the collection
	faults     []*trust.Fault
	packed     []byte // the collection
}

var (
	_ trust.Evidence = (*evidence)(nil)
	_ trust.Sized    = (*evidence)(nil)
)

// judgement is the outcome for one signature: the key that has made it, or why it does not count.
type judgement struct {
	layout layout
	by     string // the key's ID
	why    string // the rest of a sentence that begins with the layout; empty: it counts
	fault  bool   // it could not be checked
}

// Hints implements trust.Evidence: a digest needs none.
func (*evidence) Hints(string) []string { return nil }

// Statements implements trust.Evidence.
func (e *evidence) Statements(_, digest string) []trust.Statement {
	if digest != "" && digest != e.digest {
		return nil
	}
	return e.statements
}

// Signed implements trust.Evidence: whether a key of the trust root has signed. Anyone may push
// other signatures.
func (e *evidence) Signed() bool {
	return slices.ContainsFunc(e.judged, func(j judgement) bool { return j.by != "" && j.why == "" })
}

// Faults implements trust.Evidence.
func (e *evidence) Faults() []*trust.Fault { return e.faults }

// Expiry implements trust.Evidence: a key does not expire.
func (*evidence) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }

// Size implements trust.Sized.
func (e *evidence) Size() int64 {
	const each = 200 // bytes, of a statement or judgement beside its text
	size := int64(len(e.packed) + each*(1+len(e.statements)+len(e.judged)+len(e.faults)))
	for i := range e.statements {
		size += int64(len(e.statements[i].Keys)) * (64 + 16)
	}
	for i := range e.judged {
		size += int64(len(e.judged[i].why))
	}
	return size
}

// Rejected implements trust.Evidence. It says of each signature that does not count why, and of
// each key that has signed, whose it is.
func (e *evidence) Rejected(names []string, _, digest string) []trust.Rejection {
	if digest != "" && digest != e.digest {
		return nil
	}
	unmet := slices.DeleteFunc(e.roles.named(names), func(r *role) bool {
		return slices.ContainsFunc(e.statements, func(st trust.Statement) bool { return st.Role == r.name })
	})
	var all []trust.Rejection
	add := func(r trust.Rejection) {
		if len(all) < maxRejections && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	for _, j := range e.judged {
		switch {
		case j.fault:
		case j.by == "" && j.why == "":
			add(trust.Rejection{By: "a key that no role of this trust root lists", Digest: e.digest,
				Why: "in a " + j.layout.String()})
		case j.by == "":
			add(trust.Rejection{By: "a " + j.layout.String(), Why: j.why})
		case j.why != "":
			add(trust.Rejection{By: "key " + short(j.by), Digest: e.digest, Why: j.why})
		default:
			if why := e.roles.foreign(j.by, unmet); why != "" {
				add(trust.Rejection{By: "key " + short(j.by), Digest: e.digest, Why: why})
			}
		}
	}
	return all
}

// named returns the roles of these names that the trust root lists.
func (r *roles) named(names []string) []*role {
	var some []*role
	for i := range r.all {
		if slices.Contains(names, r.all[i].name) {
			some = append(some, &r.all[i])
		}
	}
	return some
}

// foreign says why a key that has signed proves none of some roles: it is revoked, of other roles,
// or alone below the threshold.
func (r *roles) foreign(id string, unmet []*role) string {
	switch {
	case r.revoked[id]:
		return "and spec.revokedKeys lists that key"
	case len(unmet) == 0:
		return ""
	}
	for _, one := range unmet {
		if slices.ContainsFunc(one.keys, func(k *key) bool { return k.id == id }) {
			return fmt.Sprintf("and role %q needs %d keys", one.name, one.threshold)
		}
	}
	var of []string
	for i := range r.all {
		if slices.ContainsFunc(r.all[i].keys, func(k *key) bool { return k.id == id }) {
			of = append(of, fmt.Sprintf("%q", r.all[i].name))
		}
	}
	slices.Sort(of)
	return "and is a key of " + strings.Join(of, ", ") + " alone"
}

func compareRoles(a, b string) int { return cmp.Compare(a, b) }

// short returns the beginning of a key's ID.
func short(id string) string { return id[:min(len(id), shortID)] }
