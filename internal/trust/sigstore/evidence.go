package sigstore

import (
	"cmp"
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
)

// evidence is what was verified about one digest. It implements trust.Evidence.
type evidence struct {
	digest     string
	roles      *roles           // with which it was verified
	trusted    string           // the ID of the trusted root with which it was verified
	judges     string           // verifier.judges, with which it was verified
	now        func() time.Time // for the text of a denial
	statements []trust.Statement
	judged     []judgement // one for each signature of the collection
	faults     []*trust.Fault
	unfetched  []*trust.Fault       // those of faults that a new look at the signatures does not mend
	packed     []byte               // the collection
	attested   *attestationEvidence // nil: no role needs attestations
	// before says that a signature or attestation counted before, and can now not be checked.
	before bool
}

var (
	_ trust.Evidence = (*evidence)(nil)
	_ trust.Sized    = (*evidence)(nil)
)

// judgement is the outcome for one signature: what it proves, or why it does not count.
type judgement struct {
	layout layout
	proof  *proof // nil: it is no signature, or could not be checked
	why    string // the rest of a sentence that begins with the layout or the signer; empty: proof says it
	by     string // the signer in messages, if there is no proof; empty: the layout stands for it
	fault  bool   // it could not be checked
	copied bool   // another one with the same signature stands for it

	signature [sha256.Size]byte // the hash of the signature itself, with a proof
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

// Signed implements trust.Evidence: whether a key or identity of the trust root has signed. Anyone
// may push other signatures.
func (e *evidence) Signed() bool {
	return e.before || e.attested.signed(e.roles) || slices.ContainsFunc(e.judged, func(j judgement) bool {
		return j.proof != nil && j.why == "" && e.roles.known(j.proof)
	})
}

// Faults implements trust.Evidence.
func (e *evidence) Faults() []*trust.Fault { return e.faults }

// Expiry implements trust.Evidence. A key does not expire, and a certificate need only have been
// valid when it signed. What ends with the key of a log are single statements.
func (*evidence) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }

// Size implements trust.Sized.
func (e *evidence) Size() int64 {
	const each = 200 // bytes, of a statement or judgement beside its text
	size := int64(len(e.packed) + each*(1+len(e.statements)+len(e.judged)+len(e.faults)))
	for i := range e.statements {
		size += int64(len(e.statements[i].Keys)) * (64 + 16)
	}
	for i := range e.judged {
		size += int64(len(e.judged[i].why) + len(e.judged[i].by))
		if p := e.judged[i].proof; p != nil {
			size += each + int64(len(p.key)+len(p.whyKey)+len(p.whyIdentity))
			size += int64(len(p.identity.Issuer) + len(p.identity.Subject))
		}
	}
	return size + e.attested.memory()
}

// attestations returns what is known of the attestations.
func (e *evidence) attestations() *attestations {
	if e == nil || e.attested == nil {
		return noAttestations()
	}
	return &e.attested.attestations
}

// addAttestations adds what was verified about attestations.
func (e *evidence) addAttestations(of *attestationEvidence, faults []*trust.Fault) {
	if e.attested = of; of != nil {
		e.statements = append(e.statements, of.statements(e.digest, e.roles)...)
		slices.SortFunc(e.statements, func(a, b trust.Statement) int { return compareRoles(a.Role, b.Role) })
	}
	e.faults = append(e.faults, faults...)
}

// Rejected implements trust.Evidence. It says of each signature that does not count why, and of
// each signer, whose it is.
func (e *evidence) Rejected(names []string, _, digest string) []trust.Rejection {
	if digest != "" && digest != e.digest {
		return nil
	}
	now := e.now()
	unmet := slices.DeleteFunc(e.roles.named(names), func(r *role) bool {
		return slices.ContainsFunc(e.statements, func(st trust.Statement) bool {
			return st.Role == r.name && (st.NotAfter.IsZero() || now.Before(st.NotAfter))
		})
	})
	var all []trust.Rejection
	add := func(r trust.Rejection) {
		if len(all) < maxRejections && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	for _, r := range unmet {
		for _, rejection := range e.attested.rejected(r, e.roles, now) {
			add(rejection)
		}
	}
	for i := range e.judged {
		if r, ok := e.explain(&e.judged[i], unmet); ok {
			add(r)
		}
	}
	return all
}

// explain says why a signature proves none of some roles. ok is false if there is nothing to say.
func (e *evidence) explain(j *judgement, unmet []*role) (r trust.Rejection, ok bool) {
	p := j.proof
	switch {
	case j.fault || j.copied:
		return r, false
	case p == nil && j.by != "":
		return trust.Rejection{By: j.by, Digest: e.digest, Why: j.why}, true
	case p == nil:
		return trust.Rejection{By: "a " + j.layout.String(), Why: j.why}, true
	case p.key == "" && p.whyIdentity != "":
		return trust.Rejection{By: "a " + j.layout.String(), Why: p.whyIdentity}, true
	case p.key == "":
		return trust.Rejection{
			By: "a key that no role of this trust root lists", Digest: e.digest, Why: "in a " + j.layout.String(),
		}, true
	case !e.roles.known(p):
		return trust.Rejection{
			By: "a signer that no role of this trust root lists", Digest: e.digest, Why: p.identity.Explain(),
		}, true
	}
	r = trust.Rejection{By: p.name(), Digest: e.digest, Why: j.why}
	if r.Why == "" {
		r.Why = e.roles.foreign(p, unmet)
	}
	return r, r.Why != ""
}

// name names a listed signer.
func (p *proof) name() string {
	if p.listed {
		return "key " + short(p.key)
	}
	return fmt.Sprintf("identity %q", shown(p.identity.Subject))
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

// foreign says why a listed signer that has signed proves none of some roles: the signature does
// not count, the signer is of other roles, or alone below the threshold.
func (r *roles) foreign(p *proof, unmet []*role) string {
	if len(unmet) == 0 {
		if p.listed {
			return p.whyKey
		}
		return p.whyIdentity
	}
	for _, one := range unmet {
		if !one.known(p) {
			continue
		}
		_, ok := one.signer(p)
		switch {
		case ok && one.rule != nil:
			return fmt.Sprintf("and role %q needs an attestation (%s), which a signature is not", one.name,
				shown(one.predicateType))
		case ok:
			return fmt.Sprintf("and role %q needs %d signers", one.name, one.threshold)
		}
		if p.listed && one.lists(p.key) {
			return p.whyKey
		}
		return p.whyIdentity
	}
	if p.listed && r.revoked[p.key] {
		return p.whyKey
	}
	var of []string
	for i := range r.all {
		if r.all[i].known(p) {
			of = append(of, fmt.Sprintf("%q", r.all[i].name))
		}
	}
	slices.Sort(of)
	is := "and is an identity of "
	if p.listed {
		is = "and is a key of "
	}
	return is + strings.Join(of, ", ") + " alone"
}

func compareRoles(a, b string) int { return cmp.Compare(a, b) }

// short returns the beginning of a key's ID.
func short(id string) string { return id[:min(len(id), shortID)] }
