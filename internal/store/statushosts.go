package store

import (
	"cmp"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
)

// HostFault is the last fault of one host.
type HostFault struct {
	Host  string
	Fault *trust.Fault
}

// hostFaults returns the number of hosts that serve a subject that counts, and those of them that
// fail, sorted by name: their probe failed, or else the last fetch of such a subject. Of several
// subjects the first is reported. What is the matter of one namespace is no fault of a host. The
// lock is held.
func (t *track) hostFaults(snapshot *Snapshot, counts func(trust.Subject) bool) (hosts int, failing []HostFault) {
	type serving struct {
		first trust.Subject // that fails
		fault *trust.Fault
	}
	all := map[*host]serving{}
	if t.server != "" {
		all[t.host(t.server)] = serving{}
	}
	for about, e := range t.entries {
		if !counts(about) || about == trust.BaseSubject {
			continue
		}
		h := t.hostOf(about)
		s := all[h]
		if e.fault != nil && !snapshot.isOfTenant(t.key(about), e.fault) &&
			(s.fault == nil || about.Compare(s.first) < 0) {
			s = serving{first: about, fault: e.fault}
		}
		all[h] = s
	}
	for h, s := range all {
		if fault := cmp.Or(t.probeFault(h), s.fault); fault != nil {
			failing = append(failing, HostFault{Host: h.name, Fault: fault})
		}
	}
	slices.SortFunc(failing, func(a, b HostFault) int { return strings.Compare(a.Host, b.Host) })
	return len(all), failing
}

// probeFault returns the fault of the last probe of a host, as far as that counts.
func (t *track) probeFault(h *host) *trust.Fault {
	if t.isServer(h) || h.probed() {
		return h.probe.fault
	}
	return nil
}
