package sigstore

import "slices"

// Anyone who may push can add signatures and attestations to a signed image, and copy it into many
// repositories. So of what no listed signer has made, little is kept: what fits into the bounds
// below, so that an edit that lists its signer needs no network, and of the rest the digests and
// why it does not count. The rest is fetched again once the roles or the trusted root have changed.

const (
	// maxForeign bounds the signatures on a digest, and again the attestations, that are kept
	// though no listed signer has made them, in bytes.
	maxForeign = 32 << 10
	// maxReasons bounds the texts that say why one of the rest does not count.
	maxReasons = maxRejections
)

// shed is what is known of a signature or attestation whose contents are not kept.
type shed struct {
	// By names the signer in messages. Empty: the layout does.
	By string `json:"by,omitempty"`
	// Foreign says that nobody listed has made it. The contents are needed again to judge it by
	// other roles or another trusted root. Else it is none, whatever these are.
	Foreign bool `json:"foreign,omitempty"`
}

// others bounds what is kept of what no listed signer has made. The zero value is ready for use.
type others struct {
	bytes   int64
	reasons int
}

// keep reports whether one more of some bytes is kept. Once one is not, none after it is: so those
// that are kept are the same again at the next look.
func (o *others) keep(size int64) bool {
	o.bytes += size
	return o.bytes <= maxForeign
}

// reason returns the reason to show, bounded in number.
func (o *others) reason(why string) string {
	if o.reasons++; o.reasons > maxReasons {
		return "does not count, as many others"
	}
	return why
}

// shed drops the contents of signatures that no listed signer has made, beyond maxForeign bytes.
func (v *verifier) shed(e *evidence, c *collection) {
	if c.Judges != "" && c.Judges != e.judges {
		return // until these have judged all
	}
	var o others
	for i := range c.Signatures {
		s, j := &c.Signatures[i], &e.judged[i]
		if s.Why != "" || j.fault || j.proof != nil && e.roles.known(j.proof) || o.keep(s.size()) {
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
		*s = kept{Layout: s.Layout, ID: s.ID, Why: why, shed: shed{By: by, Foreign: j.proof != nil}}
		*j = judgement{layout: s.Layout, why: why, by: by}
	}
}

// shed drops the contents of attestations that no listed signer has made, beyond maxForeign bytes.
func (e *attestationEvidence) shed(by *verifier) {
	if e.Judges != "" && e.Judges != by.judges() {
		return // until these have judged all
	}
	var o others
	e.All = slices.Clone(e.All) // other evidence shares it
	for i := range e.All {
		a, j := &e.All[i], &e.judged[i]
		if a.Why != "" || j.fault || j.proof != nil && by.roles.known(j.proof) ||
			o.keep(int64(len(a.Content)+a.bytes())) {
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
		*a = attested{Layout: a.Layout, ID: a.ID, Size: a.Size, Why: why, shed: shed{Foreign: j.proof != nil}}
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

// judges names the roles, the rules and the trusted root by which signatures are judged.
func (v *verifier) judges() string { return v.roles.id + " " + string(v.log) + " " + v.trustedID() }

// forget removes the signatures whose contents are not kept, so that they are fetched again, if
// others judge now.
func (c *collection) forget(judges string) {
	if c.Judges == "" || c.Judges == judges {
		return
	}
	c.Judges = ""
	c.Signatures = slices.DeleteFunc(c.Signatures, func(s kept) bool {
		if s.Foreign && s.Layout == layoutTag {
			c.Tag = ""
		}
		return s.Foreign
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
		All: slices.DeleteFunc(slices.Clone(a.All), func(one attested) bool { return one.Foreign }),
	}
}
