package policy

import (
	"fmt"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/text"
)

// decideShort decides on a name that nodes may pull from another registry than docker.io. It fails
// every policy that holds in the namespace: mode Enforce denies, mode Warn warns, and mode Audit is
// recorded. Where no policy holds, it decides as on an uncovered image.
func (s *Set) decideShort(req Request, image imageref.Ref) Decision {
	holding := s.HoldingIn(req.NamespaceLabels)
	if len(holding) == 0 {
		return s.decideUncovered(req, image)
	}
	d := Decision{Verdict: Admitted, Image: image, Outcomes: make([]Outcome, 0, len(holding))}
	var enforcing, warning, auditing []*Policy
	for _, p := range holding {
		d.Outcomes = append(d.Outcomes, Outcome{
			Policy: p.name, Mode: p.mode, Roots: p.roots, Reason: v1alpha1.ReasonShortName,
		})
		switch {
		case p.enforces():
			enforcing = append(enforcing, p)
		case p.mode == v1alpha1.ModeWarn:
			warning = append(warning, p)
		default:
			auditing = append(auditing, p)
		}
	}
	if len(enforcing) > 0 {
		d.Verdict, d.Message = Denied, shortLine(req.Image, image, enforcing)
	}
	if len(warning) > 0 {
		d.Warnings = []string{shortLine(req.Image, image, warning)}
	}
	if len(auditing) > 0 {
		d.Audits = []string{shortLine(req.Image, image, auditing)}
	}
	if len(enforcing) == 0 && !slices.ContainsFunc(holding, func(p *Policy) bool { return p.everything }) {
		s.applyUncovered(req, &d)
	}
	return d
}

// applyUncovered applies --uncovered-images to a short name that no policy denies. No pattern is
// known to cover such a name, unless it covers every image. A policy in mode Warn or Audit must not
// admit a short name where the same image, written in full, is denied.
func (s *Set) applyUncovered(req Request, d *Decision) {
	const why = "it names no registry, so no ImagePolicy is known to cover it"
	switch s.uncovered {
	case UncoveredAllow:
	case UncoveredWarn:
		if len(d.Warnings) == 0 {
			d.Warnings = []string{line(req.Image, part{text: why + "; " + inFull(d.Image)})}
		}
	default:
		d.Verdict = Denied
		d.Message = line(req.Image, part{
			text: why + ", and what none covers is denied here (--uncovered-images); " + inFull(d.Image),
		})
	}
}

// shortLine says that the policies do not hold for a short name, and how to write it.
func shortLine(written string, image imageref.Ref, policies []*Policy) string {
	return line(written,
		part{text: fmt.Sprintf(
			"%s: it names no registry, and a node may pull it from any that it searches (--short-names=Deny); %s",
			policyNames(policies), inFull(image)), help: helpOf(policies)})
}

// inFull says how to write a short name so that every node pulls it from one registry.
func inFull(image imageref.Ref) string {
	full := image.Repository()
	if image.Tag != "" && image.Tag != "latest" || image.Digest != "" {
		full = image.String()
	}
	return fmt.Sprintf("write %s or the registry that you mean", text.Cut(full, maxImageText))
}
