package sigstore

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
)

// Anyone who may push can add signatures and attestations to a signed image, and copy it into many
// repositories. So of what no listed signer has made, little is kept: what fits into the bounds
// below, so that an edit that lists its signer needs no network, and of the rest the digests and
// why it does not count. The rest is fetched again once the roles or the trusted root have changed.
//
// Anyone may also copy a signature that counts, with other certificates, log entries and timestamps
// beside it. One copy is kept, and others as far as they fit into a bound of their own. What could
// never be checked, for lack of the trusted root, anyone may have made: it has such a bound, too.

// maxReasons bounds the texts that say why one of the rest does not count.
const maxReasons = maxRejections

// shed is what is known of a signature or attestation whose contents are not kept.
type shed struct {
	// By names the signer in messages. Empty: the layout does.
	By string `json:"by,omitempty"`
	// Dropped says that the contents are needed again to judge it by other roles or another trusted
	// root: nobody listed has made it, or it is a copy, or was not checked. Else it is none,
	// whatever these are.
	Dropped bool `json:"dropped,omitempty"`
	// Copy says that another one with the same signature is kept.
	Copy bool `json:"copy,omitempty"`
	// Unchecked says that it could not be checked, for lack of the trusted root.
	Unchecked bool `json:"unchecked,omitempty"`
	// Counted says that a listed signer has made it, when it could last be checked. Its contents
	// are kept.
	Counted bool `json:"counted,omitempty"`
}

// dropped is the fault of what was dropped unchecked. The error is a *trust.Fault.
func (v *verifier) dropped(what string) error {
	if _, err := v.trustedRoot(); err != nil {
		return err
	}
	return trust.NewFault(v1alpha1.ReasonMetadataMissing, "%s must be fetched again: it was found while the trusted "+
		"root was not available, and not kept; try again", what)
}

// class is what copies of a signature have in common: the signature, whose it is, and for what it
// counts. Two signatures of one signer are no copies: an edit may tell them apart.
type class struct {
	signature     [sha256.Size]byte
	key           string
	listed        bool
	identity      identity.Identity
	byKey, byName bool // it counts for its key, or for its identity
	about         bool // it is about this repository
}

func (p *proof) class(signature [sha256.Size]byte, why string) class {
	return class{
		signature: signature, key: p.key, listed: p.listed, identity: p.identity,
		byKey: p.whyKey == "", byName: p.whyIdentity == "", about: why == "",
	}
}

// originals finds, of some copies, the one to keep. The zero value is not ready for use.
type originals map[class]original

// original is the copy to keep: for attestations the one that is known to be the oldest, then the
// one that counts the longest, then the smallest.
type original struct {
	index int
	proof *proof
	size  int64
}

// offer replaces the copy to keep by a better one. The time counts where dated is set.
func (o originals) offer(of class, one original, dated bool) {
	if have, ok := o[of]; !ok || one.better(&have, dated) {
		o[of] = one
	}
}

func (o *original) better(other *original, dated bool) bool {
	earliest := func(p *proof) time.Time {
		if !dated || p.time.IsZero() {
			return time.Unix(1<<40, 0) // a copy without its time
		}
		return p.time
	}
	ends := func(p *proof) time.Time {
		if p.until.IsZero() {
			return time.Unix(1<<40, 0)
		}
		return p.until
	}
	return cmp.Or(earliest(o.proof).Compare(earliest(other.proof)), ends(other.proof).Compare(ends(o.proof)),
		cmp.Compare(o.size, other.size)) < 0
}

// others bounds what is kept of what no listed signer has made. The zero value is ready for use.
type others struct {
	bydigest.Foreign
	reasons int
}

// reason returns the reason to show, bounded in number.
func (o *others) reason(why string) string {
	if o.reasons++; o.reasons > maxReasons {
		return "does not count, as many others"
	}
	return why
}

// shed drops the contents of signatures that no listed signer has made, of copies, and of what
// could never be checked, beyond bydigest.MaxForeign.
func (v *verifier) shed(e *evidence, c *collection) {
	_, missing := v.trustedRoot()
	best := originals{}
	for i := range c.Signatures {
		s, j := &c.Signatures[i], &e.judged[i]
		if j.fault {
			continue
		}
		if s.Counted = j.proof != nil && e.roles.known(j.proof); s.Counted {
			best.offer(j.proof.class(j.signature, j.why), original{i, j.proof, s.size()}, false)
		}
	}
	if c.Judges != "" && c.Judges != e.judges {
		return // until these have judged all
	}
	var o, copies, unchecked others
	for i := range c.Signatures {
		s, j := &c.Signatures[i], &e.judged[i]
		of := &o
		switch {
		case s.Why != "" || s.Dropped,
			j.fault && (s.Counted || missing == nil),
			!j.fault && s.Counted && best[j.proof.class(j.signature, j.why)].index == i:
			continue
		case j.fault:
			of = &unchecked
		case s.Counted:
			of = &copies
		}
		if of.Keep(s.size()) {
			continue
		}
		if of != &o {
			c.Judges = e.judges
			*s = kept{Layout: s.Layout, ID: s.ID, shed: shed{Dropped: true, Copy: !j.fault, Unchecked: j.fault}}
			*j = judgement{layout: s.Layout, copied: !j.fault, fault: j.fault}
			continue
		}
		r, _ := e.explain(j, nil)
		why, by := o.reason(r.Why), r.By
		if why != r.Why || by == "a "+j.layout.String() {
			by = ""
		}
		if j.proof != nil {
			c.Judges = e.judges
		}
		*s = kept{Layout: s.Layout, ID: s.ID, Why: why, shed: shed{By: by, Dropped: j.proof != nil}}
		*j = judgement{layout: s.Layout, why: why, by: by}
	}
}

// shed drops the contents of attestations that no listed signer has made, of copies, and of what
// could never be checked, beyond bydigest.MaxForeign.
func (e *attestationEvidence) shed(by *verifier) {
	_, missing := by.trustedRoot()
	best := originals{}
	e.All = slices.Clone(e.All) // other evidence shares it
	for i := range e.All {
		a, j := &e.All[i], &e.judged[i]
		if j.fault {
			continue
		}
		if a.Counted = j.proof != nil && by.roles.known(j.proof); a.Counted {
			best.offer(j.proof.class(j.signature, ""), original{i, j.proof, a.kept()}, true)
		}
	}
	if e.Judges != "" && e.Judges != by.judges() {
		return // until these have judged all
	}
	var o, copies, unchecked others
	for i := range e.All {
		a, j := &e.All[i], &e.judged[i]
		of := &o
		switch {
		case a.Why != "" || a.Dropped,
			j.fault && (a.Counted || missing == nil),
			!j.fault && a.Counted && best[j.proof.class(j.signature, "")].index == i:
			continue
		case j.fault:
			of = &unchecked
		case a.Counted:
			of = &copies
		}
		if of.Keep(a.kept()) {
			continue
		}
		if of != &o {
			e.Judges = by.judges()
			*a = attested{Layout: a.Layout, ID: a.ID, Size: a.Size,
				shed: shed{Dropped: true, Copy: !j.fault, Unchecked: j.fault}}
			*j = attestedJudgement{copied: !j.fault, fault: j.fault}
			continue
		}
		why := j.why
		if j.proof != nil {
			why = j.proof.stranger()
		}
		why = o.reason(why)
		if j.proof != nil {
			e.Judges = by.judges()
		}
		*a = attested{Layout: a.Layout, ID: a.ID, Size: a.Size, Why: why, shed: shed{Dropped: j.proof != nil}}
		*j = attestedJudgement{why: why}
	}
}

// stranger says who has made an attestation that no listed signer has made, in the rest of a
// sentence that begins with the attestation.
func (p *proof) stranger() string {
	switch {
	case p.key == "" && p.whyIdentity != "":
		return p.whyIdentity
	case p.key == "":
		return "is signed by a key that no role of this trust root lists"
	}
	return "is signed by a signer that no role of this trust root lists: " + p.identity.Explain()
}

// kept is how many bytes are kept of an attestation.
func (a *attested) kept() int64 { return int64(len(a.Content) + a.bytes()) }

// judges names the roles, the rules and the trusted root by which signatures are judged.
func (v *verifier) judges() string {
	judges := v.roles.id + " " + string(v.log) + " " + v.trustedID()
	if v.match {
		judges += " match"
	}
	return judges
}

// forget removes the signatures whose contents are not kept, so that they are fetched again, if
// others judge now.
func (c *collection) forget(judges string) {
	if c.Judges == "" || c.Judges == judges {
		return
	}
	c.Judges = ""
	c.Signatures = slices.DeleteFunc(c.Signatures, func(s kept) bool {
		if s.Dropped && s.Layout == layoutTag {
			c.Tag = ""
		}
		return s.Dropped
	})
}

// forget returns what is known if others judge now: all of it may have to be fetched again, and
// until then the newest attestation may be missing.
func (a *attestations) forget(judges string) *attestations {
	if a.Judges == "" || a.Judges == judges {
		return a
	}
	return &attestations{
		Types: a.Types, Unread: []layout{layoutTag, layoutBundle},
		All: slices.DeleteFunc(slices.Clone(a.All), func(one attested) bool { return one.Dropped }),
	}
}
