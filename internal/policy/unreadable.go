package policy

import "fmt"

// decideUnreadable decides on a reference that cannot be parsed. Any policy that holds in the
// namespace may cover it, whatever its patterns and mode. So it denies where one holds, with the
// names and the help of all that hold. Elsewhere it decides as on an uncovered image and warns the
// client, since the node will probably fail to pull it.
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
