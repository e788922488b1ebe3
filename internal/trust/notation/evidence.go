package notation

import (
	"crypto/sha256"
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
	// sharedCRL is what a CRL counts for in the size of each evidence: all of them share it.
	sharedCRL = 4 << 10
)

// evidence is what was verified about one digest. It implements trust.Evidence.
type evidence struct {
	digest     string
	verifier   *verifier // with which it was verified
	statements []trust.Statement
	files      []trust.File
	judged     []judgement // one for each signature of the collection
	faults     []*trust.Fault
	packed     []byte    // the collection
	answers    []*answer // about revocation, by which the signatures count
	// expiry is when the first statement ends because certificates must be checked for revocation
	// again, and what is then to be checked.
	expiry  time.Time
	expires string
	// again says that the signatures were verified again, by other roles: those that are not kept
	// must be fetched again.
	again bool
}

var (
	_ trust.Evidence = (*evidence)(nil)
	_ trust.Sized    = (*evidence)(nil)
	_ trust.Dated    = (*evidence)(nil)
)

// judgement is the outcome for one signature.
type judgement struct {
	// by is the ID of the key that has made it, if its certificate is of a role. Otherwise anyone
	// may have made it.
	by      string
	subject string   // of its certificate
	roles   []string // whose certificates it may be by
	// why is the rest of a sentence that begins with the signature. Empty: it counts.
	why   string
	fault *trust.Fault // it could not be checked
	until ending       // when it no longer counts

	signature [sha256.Size]byte // the hash of the signature itself, if by is set
	copied    bool              // another one with the same signature stands for it
}

// ending is when something ends, and what ends it. The zero time: never.
type ending struct {
	at   time.Time
	what string
	// again says that it counts again once certificates were checked for revocation.
	again bool
}

// first returns the ending that comes first.
func (e ending) first(other ending) ending {
	if e.at.IsZero() || !other.at.IsZero() && other.at.Before(e.at) {
		return other
	}
	return e
}

// later reports whether an ending comes after another.
func (e ending) later(other ending) bool {
	return !other.at.IsZero() && (e.at.IsZero() || e.at.After(other.at))
}

// counts reports whether the signature counts for its roles.
func (j *judgement) counts() bool { return j.by != "" && j.why == "" && j.fault == nil }

// prove sets the statements: the roles of which enough keys have signed. One key counts once,
// however often it has signed. A statement ends when too few keys are left.
func (e *evidence) prove(r *roles) {
	for i := range r.all {
		one := &r.all[i]
		until := map[string]ending{}
		for n := range e.judged {
			j := &e.judged[n]
			if !j.counts() || !slices.Contains(j.roles, one.name) {
				continue
			}
			if have, ok := until[j.by]; !ok || j.until.later(have) {
				until[j.by] = j.until
			}
		}
		if len(until) < one.threshold {
			continue
		}
		keys, endings := make([]string, 0, len(until)), make([]ending, 0, len(until))
		for key, end := range until {
			keys, endings = append(keys, key), append(endings, end)
		}
		slices.Sort(keys)
		slices.SortFunc(endings, func(a, b ending) int {
			switch {
			case a.later(b):
				return -1
			case b.later(a):
				return 1
			}
			return strings.Compare(a.what, b.what)
		})
		e.state(one, keys, endings[one.threshold-1])
	}
	slices.SortFunc(e.statements, func(a, b trust.Statement) int { return strings.Compare(a.Role, b.Role) })
}

// state adds a statement.
func (e *evidence) state(of *role, keys []string, end ending) {
	e.statements = append(e.statements, trust.Statement{Digest: e.digest, Role: of.name, Keys: keys, NotAfter: end.at})
	if end.at.IsZero() {
		return
	}
	kind := "signature"
	if end.again {
		kind = "revocation"
		if e.expiry.IsZero() || end.at.Before(e.expiry) {
			e.expiry, e.expires = end.at, end.what
		}
	}
	e.files = append(e.files, trust.File{
		Name: end.what, NotAfter: end.at, Unattended: end.again, Part: true, Kind: kind,
	})
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

// Signed implements trust.Evidence: whether a certificate of a role has signed. Anyone may push
// other signatures.
func (e *evidence) Signed() bool {
	return slices.ContainsFunc(e.judged, func(j judgement) bool { return j.by != "" && j.why == "" })
}

// Faults implements trust.Evidence.
func (e *evidence) Faults() []*trust.Fault { return e.faults }

// Expiry implements trust.Evidence: when a statement no longer counts until certificates are
// checked for revocation again. A signature or certificate that expires ends its statements alone.
func (e *evidence) Expiry() (notAfter time.Time, file string) { return e.expiry, e.expires }

// Files implements trust.Dated.
func (e *evidence) Files() []trust.File { return e.files }

// Size implements trust.Sized.
func (e *evidence) Size() int64 {
	const each = 200 // bytes, of a statement or judgement beside its text
	size := int64(len(e.packed) + each*(1+2*len(e.statements)+len(e.judged)+len(e.faults)+len(e.answers)))
	for i := range e.statements {
		size += int64(len(e.statements[i].Keys)) * (64 + 16)
	}
	for i := range e.judged {
		j := &e.judged[i]
		size += int64(len(j.why)+len(j.subject)+len(j.by)+len(j.until.what)) + int64(16*len(j.roles))
	}
	for _, a := range e.answers {
		if a.CRL != "" {
			size += int64(min(len(a.Raw), sharedCRL))
		} else {
			size += int64(len(a.Raw))
		}
	}
	return size
}

// Rejected implements trust.Evidence. It says of each signature that does not count why, and of
// each certificate that has signed, whose it is.
func (e *evidence) Rejected(names []string, _, digest string) []trust.Rejection {
	if digest != "" && digest != e.digest {
		return nil
	}
	unmet := slices.DeleteFunc(e.verifier.roles.named(names), func(r *role) bool {
		return slices.ContainsFunc(e.statements, func(st trust.Statement) bool { return st.Role == r.name })
	})
	var all []trust.Rejection
	add := func(r trust.Rejection) {
		if len(all) < maxRejections && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	for i := range e.judged {
		j := &e.judged[i]
		switch {
		case j.fault != nil || j.copied:
		case j.by == "" && j.subject == "":
			add(trust.Rejection{By: "a Notation signature", Why: j.why})
		case j.why != "":
			add(trust.Rejection{By: j.signer(), Digest: e.digest, Why: j.why})
		default:
			if why := j.foreign(unmet); why != "" {
				add(trust.Rejection{By: j.signer(), Digest: e.digest, Why: why})
			}
		}
	}
	return all
}

// signer names the certificate of a signature.
func (j *judgement) signer() string {
	if j.by == "" {
		return fmt.Sprintf("the certificate %q", j.subject)
	}
	return fmt.Sprintf("the certificate %q (key %s)", j.subject, j.by[:min(len(j.by), shortID)])
}

// foreign says why a signature that counts proves none of some roles: it is of other roles, or
// alone below the threshold.
func (j *judgement) foreign(unmet []*role) string {
	if len(unmet) == 0 {
		return ""
	}
	for _, one := range unmet {
		if slices.Contains(j.roles, one.name) {
			return fmt.Sprintf("and role %q needs %d keys", one.name, one.threshold)
		}
	}
	of := make([]string, len(j.roles))
	for i, name := range j.roles {
		of[i] = fmt.Sprintf("%q", name)
	}
	slices.Sort(of)
	return "and is a certificate of " + strings.Join(of, ", ") + " alone"
}
