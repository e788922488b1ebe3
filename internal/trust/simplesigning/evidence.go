package simplesigning

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxRejections bounds the rejections that a denial can show.
const maxRejections = 16

// evidence is what was verified about one digest. It implements trust.Evidence.
type evidence struct {
	by     *verifier // with which it was verified
	about  trust.Subject
	judged []judgement // one for each signature of the collection
	faults []*trust.Fault
	packed []byte // the collection

	// statements are those for references by each tag that a signature names, for any other tag,
	// and by digest alone.
	tagged          map[string][]trust.Statement
	others, digests []trust.Statement
	files           []trust.File // what ends statements
}

var (
	_ trust.Evidence = (*evidence)(nil)
	_ trust.Sized    = (*evidence)(nil)
	_ trust.Dated    = (*evidence)(nil)
)

// judgement is the outcome for one signature: the key that has made it and for which references it
// is, or why it does not count.
type judgement struct {
	name       string
	by, signer string    // fingerprints of the primary key, and of it or the subkey that signed
	until      time.Time // when it expires; zero: never
	reference  string    // that it names, for messages
	scope      scope
	why        string            // the rest of a sentence that begins with the signature; empty: it counts
	ends       string            // the key or subkey that expires then; empty: the signature does
	made       time.Time         // when the signature was made, as it says
	content    [sha256.Size]byte // the hash of what was signed, if by is set
	copied     bool              // another one says the same
	unknown    bool              // no role lists the key
	fault      bool              // it could not be checked
}

// conclude computes the statements of the signatures.
func (e *evidence) conclude() {
	e.tagged = map[string][]trust.Statement{}
	for i := range e.judged {
		if tag := e.judged[i].scope.tag; tag != "" && e.tagged[tag] == nil {
			e.tagged[tag] = e.of(func(s scope) bool { return s.covers(tag) })
		}
	}
	e.others = e.of(func(s scope) bool { return s.all })
	e.digests = slices.Clone(e.of(func(s scope) bool { return s.covers("") }))
	defer e.date()
	if e.by.identity.kind != v1alpha1.SignedIdentityMatchExact {
		return
	}
	for tag, statements := range e.tagged {
		for _, st := range statements {
			st.Tag, st.TagOnly = tag, true
			e.digests = append(e.digests, st)
		}
	}
	slices.SortFunc(e.digests, func(a, b trust.Statement) int {
		return strings.Compare(a.Role+" "+a.Tag, b.Role+" "+b.Tag)
	})
}

// date sets the files: what ends the statements, each once.
func (e *evidence) date() {
	all := slices.Concat(e.others, e.digests)
	for _, statements := range e.tagged {
		all = append(all, statements...)
	}
	at := map[string]trust.File{}
	for i := range all {
		st := &all[i]
		if st.NotAfter.IsZero() {
			continue
		}
		for n := range e.judged {
			j := &e.judged[n]
			if j.why != "" || !j.until.Equal(st.NotAfter) || !slices.Contains(st.Keys, j.by) {
				continue
			}
			f := trust.File{Name: "the key " + j.ends, NotAfter: j.until, Part: true, Kind: "key"}
			if j.ends == "" {
				f.Name, f.Kind = "the signature of the key "+j.signer, "signature"
			}
			if have, ok := at[f.Name]; !ok || f.NotAfter.Before(have.NotAfter) {
				at[f.Name] = f
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		e.files = append(e.files, at[name])
	}
}

// of returns the statements that the signatures of some scopes make together.
func (e *evidence) of(covers func(scope) bool) []trust.Statement {
	until := map[string]time.Time{}
	for i := range e.judged {
		j := &e.judged[i]
		if j.by == "" || j.why != "" || !covers(j.scope) {
			continue
		}
		if have, ok := until[j.by]; !ok || later(j.until, have) {
			until[j.by] = j.until
		}
	}
	return e.by.roles.statements(e.about.Digest, until)
}

// Hints implements trust.Evidence: a digest needs none.
func (*evidence) Hints(string) []string { return nil }

// Statements implements trust.Evidence. Those for a tag do not name it: which digests a tag may
// mean, the registry alone says.
func (e *evidence) Statements(tag, digest string) []trust.Statement {
	if digest != "" && digest != e.about.Digest {
		return nil
	}
	if tag == "" {
		return e.digests
	}
	if statements, ok := e.tagged[tag]; ok {
		return statements
	}
	return e.others
}

// Signed implements trust.Evidence: whether a key of the trust root has signed the image, under
// this name. Anyone may have added other signatures.
func (e *evidence) Signed() bool {
	return slices.ContainsFunc(e.judged, func(j judgement) bool { return j.by != "" && j.why == "" && !j.scope.none() })
}

// Faults implements trust.Evidence.
func (e *evidence) Faults() []*trust.Fault { return e.faults }

// Expiry implements trust.Evidence: each signature has its own expiry, and their absence none.
func (*evidence) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }

// Files implements trust.Dated: the keys and signatures that expire, and end a statement.
func (e *evidence) Files() []trust.File { return e.files }

// Size implements trust.Sized.
func (e *evidence) Size() int64 {
	const each = 240 // bytes, of a statement or judgement beside its text
	all := [][]trust.Statement{e.others, e.digests}
	for _, statements := range e.tagged {
		all = append(all, statements)
	}
	size := int64(len(e.packed) + each*(1+len(e.judged)+len(e.faults)+len(e.tagged)+len(e.files)))
	for _, statements := range all {
		for i := range statements {
			size += each + int64(len(statements[i].Keys))*(64+16)
		}
	}
	for i := range e.judged {
		j := &e.judged[i]
		size += int64(len(j.why) + len(j.reference) + len(j.name))
	}
	return size
}

// Rejected implements trust.Evidence. It says of each signature that does not count why, and of
// each key that has signed, whose it is.
func (e *evidence) Rejected(names []string, tag, digest string) []trust.Rejection {
	if digest != "" && digest != e.about.Digest {
		return nil
	}
	statements := e.Statements(tag, digest)
	unmet := slices.DeleteFunc(e.by.roles.named(names), func(r *role) bool {
		return slices.ContainsFunc(statements, func(st trust.Statement) bool {
			return st.Role == r.name && !st.TagOnly
		})
	})
	var all []trust.Rejection
	add := func(r trust.Rejection) {
		if len(all) < maxRejections && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	for i := range e.judged {
		j := &e.judged[i]
		signed := trust.Rejection{By: "key " + j.signer, Digest: e.about.Digest}
		switch {
		case j.fault, j.copied:
		case j.unknown:
			add(trust.Rejection{By: "a key that no role of this trust root lists", Digest: e.about.Digest,
				Why: "in " + j.name})
		case j.by == "":
			add(trust.Rejection{By: j.name, Why: j.why})
		case j.why != "":
			add(trust.Rejection{By: j.name + " of key " + j.signer, Why: j.why})
		case !j.scope.covers(tag):
			signed.Why = fmt.Sprintf("under the name %s, and signedIdentity is %s", j.reference, e.by.identity)
			add(signed)
		default:
			if signed.Why = e.by.roles.foreign(j.by, unmet); signed.Why != "" {
				add(signed)
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

// foreign says why a key that has signed proves none of some roles: it is of other roles, or alone
// below the threshold.
func (r *roles) foreign(id string, unmet []*role) string {
	if len(unmet) == 0 {
		return ""
	}
	lists := func(one *role) bool {
		return slices.ContainsFunc(one.keys, func(k *key) bool { return k.id == id })
	}
	for _, one := range unmet {
		if lists(one) {
			return fmt.Sprintf("and role %q needs %d keys", one.name, one.threshold)
		}
	}
	var of []string
	for i := range r.all {
		if lists(&r.all[i]) {
			of = append(of, fmt.Sprintf("%q", r.all[i].name))
		}
	}
	slices.Sort(of)
	return "and is a key of " + strings.Join(of, ", ") + " alone"
}

// budgetReason is the reason of a fault where memory could not be had.
func budgetReason(err error) string {
	if _, tooLarge := errors.AsType[*budget.TooLargeError](err); tooLarge {
		return v1alpha1.ReasonTooLarge
	}
	return v1alpha1.ReasonTimeout
}
