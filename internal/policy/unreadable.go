package policy

import "fmt"

// decideUnreadable decides on a reference that cannot be parsed. Any policy that holds in the
// namespace may cover it, whatever its patterns and its mode, so it is denied where one holds, with
// the names and the help of those that hold. Where none does, it is as an image that no policy
// covers, and the client is warned: the node will hardly know what to pull.
func (s *Set) decideUnreadable(req Request, err error) Decision {
	why := "cannot be read: " + clean(err.Error())
	holding := s.HoldingIn(req.NamespaceLabels)
	switch {
	case len(holding) > 0:
		verb := "holds"
		if len(holding) > 1 {
			verb = "hold"
		}
		why += fmt.Sprintf("; denied since %s %s in this namespace", policyNames(holding), verb)
		return Decision{Message: line(req.Image, part{text: why, help: helpOf(holding)})}
	case s.uncovered == UncoveredAllow || s.uncovered == UncoveredWarn:
		return Decision{
			Verdict: Admitted,
			Warnings: []string{
				line(req.Image, part{text: why + "; it is let through, since no ImagePolicy holds in this namespace"}),
			},
		}
	}
	return Decision{
		Message: line(req.Image, part{
			text: why +
				"; no ImagePolicy holds in this namespace, and what none covers is denied here (--uncovered-images)",
		}),
	}
}
