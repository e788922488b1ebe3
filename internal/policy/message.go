package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

// explain says, for each policy that does not hold, which requirements are unmet, which roles
// signed which digest, and under which trust roots.
func (e *evaluation) explain(policies []*Policy, c choice) []part {
	if c.rival != "" {
		requiring := requiring(policies)
		return []part{
			{text: join(
				fmt.Sprintf(
					"%s: two digests have every signature they need, %s and %s (TrustRoot %q), and neither is chosen",
					policyNames(requiring), short(c.digest), short(c.rival), c.root),
				"deploy one by its digest, or remove the signatures of the other", e.faults(policies)),
				help: helpOf(requiring)},
		}
	}
	var parts []part
	for _, p := range policies {
		if text := e.explainPolicy(p); text != "" {
			parts = append(parts, part{text: fmt.Sprintf("ImagePolicy %q: %s", p.name, text), help: p.help})
		}
	}
	if len(parts) > 0 {
		return parts
	}
	// Each policy holds for some digest, and no digest is acceptable to all.
	for _, p := range requiring(policies) {
		parts = append(parts,
			part{text: join(fmt.Sprintf("ImagePolicy %q: holds for %s, which another policy does not accept",
				p.name, list(shorten(e.holdsFor(p)))), e.faults([]*Policy{p})), help: p.help})
	}
	return parts
}

// requiring returns those of the policies that require signatures.
func requiring(policies []*Policy) []*Policy {
	return slices.DeleteFunc(slices.Clone(policies), func(p *Policy) bool { return len(p.requirements) == 0 })
}

func policyNames(policies []*Policy) string {
	names := make([]string, 0, len(policies))
	for _, p := range policies {
		names = append(names, fmt.Sprintf("ImagePolicy %q", p.name))
	}
	return list(names)
}

// helpOf returns the help of several policies, each text once.
func helpOf(policies []*Policy) string {
	var texts []string
	for _, p := range policies {
		if p.help != "" && !slices.Contains(texts, p.help) {
			texts = append(texts, p.help)
		}
	}
	return text.Cut(strings.Join(texts, "; "), maxHelp)
}

// explainPolicy returns nothing for a policy that holds for some digest of the image.
func (e *evaluation) explainPolicy(p *Policy) string {
	if e.blocked(p) {
		return e.explainBlocked(p)
	}
	if len(p.requirements) == 0 || len(e.holdsFor(p)) > 0 {
		return ""
	}
	if e.nothingLoaded(p) {
		return e.faults([]*Policy{p})
	}
	return join(e.explainUnmet(p), e.rejections(p), e.expired(p), e.lookedUp(p), e.faults([]*Policy{p}))
}

// explainUnmet says which requirements are unmet: for the image's own digest, or for each digest
// that the policy's roles signed for the tag.
func (e *evaluation) explainUnmet(p *Policy) string {
	candidates := e.candidates([]*Policy{p})
	switch {
	case e.image.Digest != "":
		return join(e.explainDigest(p, e.image.Digest), e.otherDigests(p, e.image.Digest))
	case len(candidates) == 0:
		return join(list(e.unmet(p, "", "it")), e.statements(p, "no signatures for this tag"))
	case len(candidates) == 1:
		return e.explainDigest(p, candidates[0])
	}
	var unmet []string
	for _, digest := range candidates {
		unmet = append(unmet, e.unmet(p, digest, short(digest))...)
	}
	return join("different digests were signed: "+list(unmet), e.statements(p, ""))
}

func (e *evaluation) explainBlocked(p *Policy) string {
	if p.invalid != nil {
		return "it cannot be used, and denies all that it may cover: " + clean(p.invalid.Error())
	}
	var texts []string
	for _, root := range p.roots {
		switch s := e.under(root); {
		case s == nil:
		case s.unusable != nil:
			texts = append(texts, clean(s.unusable.Error()))
		}
	}
	return strings.Join(texts, "; ")
}

// faults says which of the policies' trust roots could not be checked, and why, and which have not
// loaded the signatures yet.
func (e *evaluation) faults(policies []*Policy) string {
	var texts, roots []string
	for root := range rootsInOrder(policies) {
		roots = append(roots, root)
	}
	slices.Sort(roots)
	for _, root := range slices.Compact(roots) {
		if s := e.under(root); s != nil {
			texts = append(texts, s.faultTexts()...)
		}
	}
	return join(texts...)
}

// faultTexts returns the faults of a trust root's look-ups, each once. A subject that pull secrets
// could not read either is one fault with two causes.
func (s *rootEvidence) faultTexts() []string {
	var texts []string
	add := func(text string) {
		if !slices.Contains(texts, text) && len(texts) < maxListed {
			texts = append(texts, text)
		}
	}
	for i := 0; i < len(s.lookups); i++ {
		switch a := &s.lookups[i]; {
		case a.outdated:
			add(fmt.Sprintf("the registry's answer about the tag under TrustRoot %q is too old; try again", s.root))
		case a.unloaded():
			add(fmt.Sprintf("the signatures under TrustRoot %q are not loaded yet; try again", s.root))
		case a.fault != nil:
			cause := clean(a.fault.Error())
			if n := i + 1; n < len(s.lookups) && s.lookups[n].fault != nil && s.lookups[n].shared() == a.shared() {
				cause = join(cause, clean(s.lookups[n].fault.Error()))
				i = n
			}
			add(fmt.Sprintf("could not check TrustRoot %q: %s", s.root, cause))
		default:
			if a.older != nil {
				add(fmt.Sprintf("could not check TrustRoot %q: %s", s.root, clean(a.older.Error())))
			}
			for _, f := range a.evidence.Faults() {
				add(fmt.Sprintf("could not check TrustRoot %q: %s", s.root, clean(f.Error())))
			}
		}
	}
	return texts
}

// nothingLoaded reports whether no trust root of the policy has loaded any signatures yet.
func (e *evaluation) nothingLoaded(p *Policy) bool {
	return !slices.ContainsFunc(p.roots, func(root string) bool {
		s := e.under(root)
		return s != nil && slices.ContainsFunc(s.lookups, func(a lookup) bool { return !a.unloaded() })
	})
}

// explainDigest says which requirements one digest does not meet, and which roles signed it.
func (e *evaluation) explainDigest(p *Policy, digest string) string {
	name, none := short(digest), "no signatures for this tag"
	switch {
	case e.image.Tag == "":
		name, none = name+" under any tag", "no signatures for this digest"
	case e.image.Digest != "":
		none = "no signatures for this tag and digest"
	}
	return join(list(e.unmet(p, digest, name)), e.signers(p, digest, none))
}

// unmet lists the requirements of the policy that a digest does not meet. Where a trust root could
// not be checked it does not claim that a role has not signed.
func (e *evaluation) unmet(p *Policy, digest, name string) []string {
	signed, hasNot := "signed", "has not signed"
	if e.incomplete(p, e.candidates([]*Policy{p})) {
		signed, hasNot = "are known to have signed", "is not known to have signed"
	}
	var texts []string
	for _, r := range p.requirements {
		n := e.count(p, r, digest)
		switch {
		case n >= r.need:
		case r.anyOf:
			roles := make([]string, 0, len(r.roles))
			for _, role := range r.roles {
				roles = append(roles, roleText(role))
			}
			texts = append(texts,
				fmt.Sprintf("only %d of the %d needed of %s %s %s", n, r.need, list(roles), signed, name))
		default:
			texts = append(texts, fmt.Sprintf("role %s %s %s", quote(r.roles[0], maxName), hasNot, name))
		}
	}
	return texts
}

// signers lists, for each trust root of the policy, the roles that signed the digest; none is the
// text where no role did.
func (e *evaluation) signers(p *Policy, digest, none string) string {
	return e.perRoot(p, none, "signed by ", "by ", func(s *rootEvidence) []string {
		var texts []string
		tags := map[string][]string{}
		for _, st := range s.of(digest) {
			role := roleText(st.Role)
			if !slices.Contains(texts, role) {
				texts = append(texts, role)
			}
			if e.image.Tag == "" && st.Tag != "" {
				tags[role] = append(tags[role], quote(st.Tag, maxName))
			}
		}
		for i, role := range texts {
			if len(tags[role]) > 0 {
				texts[i] += " under " + list(tags[role])
			}
		}
		return texts
	})
}

// statements lists, for each trust root of the policy, which role signed which digest for the tag.
func (e *evaluation) statements(p *Policy, none string) string {
	return e.perRoot(p, none, "", "", func(s *rootEvidence) []string {
		texts := make([]string, 0, len(s.live))
		for _, st := range s.live {
			texts = append(texts, roleText(st.Role)+" signed "+short(st.Digest))
		}
		return slices.Compact(texts)
	})
}

// otherDigests lists the other digests that are signed for the tag, where the reference has both.
func (e *evaluation) otherDigests(p *Policy, digest string) string {
	if e.image.Tag == "" {
		return ""
	}
	return e.perRoot(p, "", "the tag is signed otherwise: ", "", func(s *rootEvidence) []string {
		var texts []string
		for _, st := range s.live {
			if st.Digest != digest {
				texts = append(texts, roleText(st.Role)+" signed "+short(st.Digest))
			}
		}
		return slices.Compact(texts)
	})
}

// expired lists the roles of the policy whose signatures have expired.
func (e *evaluation) expired(p *Policy) string {
	return e.perRoot(p, "", "expired: ", "", func(s *rootEvidence) []string {
		var texts []string
		for _, st := range s.expired {
			if slices.Contains(p.roles, st.Role) {
				texts = append(texts, roleText(st.Role)+" at "+st.NotAfter.UTC().Format(time.RFC3339))
			}
		}
		slices.Sort(texts)
		return slices.Compact(texts)
	})
}

// perRoot joins the texts that say returns for each trust root of the policy. It also names the
// trust roots without a text.
func (e *evaluation) perRoot(p *Policy, none, first, each string, say func(*rootEvidence) []string) string {
	var texts []string
	var silent []*rootEvidence
	for _, root := range p.roots {
		s := e.under(root)
		if s == nil || !s.complete() {
			continue
		}
		if said := say(s); len(said) > 0 {
			text := each
			if len(texts) == 0 {
				text = first
			}
			texts = append(texts, fmt.Sprintf("%s%s (TrustRoot %q)", text, list(said), root))
			continue
		}
		silent = append(silent, s)
	}
	switch {
	case none == "" || len(silent) == 0:
	case len(texts) == 0:
		return e.explainUnsigned(p, none, silent)
	default:
		return fmt.Sprintf("%s, by nobody (%s)", strings.Join(texts, ", "), rootNames(silent))
	}
	return strings.Join(texts, ", ")
}

// of returns the live statements about one digest.
func (s *rootEvidence) of(digest string) []trust.Statement {
	return slices.DeleteFunc(slices.Clone(s.live), func(st trust.Statement) bool { return st.Digest != digest })
}

// complete reports whether every look-up under the trust root has evidence.
func (s *rootEvidence) complete() bool {
	return len(s.lookups) > 0 && !slices.ContainsFunc(s.lookups, func(a lookup) bool { return a.evidence == nil })
}

// holdsFor returns the digests of the image for which the policy by itself holds.
func (e *evaluation) holdsFor(p *Policy) []string {
	return slices.DeleteFunc(e.candidates([]*Policy{p}),
		func(digest string) bool { return !e.meets([]*Policy{p}, digest) })
}

func shorten(digests []string) []string {
	texts := make([]string, 0, len(digests))
	for _, digest := range digests {
		texts = append(texts, short(digest))
	}
	return texts
}
