package publication

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/store"
)

const (
	// maxErrors is how many failing repositories the status lists.
	maxErrors = 10
	// maxHosts is how many failing hosts the condition Fresh names.
	maxHosts = 10
	// maxUnanchored is how many pinned keys that no root carries the status names.
	maxUnanchored = 3
)

// statusOf computes the status from the published root and the state of its repositories.
func statusOf(tr *v1alpha1.TrustRoot, root *store.Root, held store.Status) v1alpha1.TrustRootStatus {
	s := *tr.Status.DeepCopy()
	s.ObservedGeneration, s.Format, s.RootFingerprints = tr.Generation, root.Format, root.Fingerprints
	s.LastHandledForgetVersions = root.Epoch
	if fault := root.Fault; fault != nil {
		meta.SetStatusCondition(&s.Conditions,
			status.Condition(tr, v1alpha1.ConditionReady, fault.Reason, fault.Error(), false))
	} else {
		meta.SetStatusCondition(&s.Conditions,
			status.Condition(tr, v1alpha1.ConditionReady, v1alpha1.ReasonPinned, pinnedMessage(root, held), true))
	}
	meta.SetStatusCondition(&s.Conditions, fresh(tr, root, held))
	s.Repositories = &v1alpha1.RepositoryStatus{
		Tracked: status.Count(held.Tracked), Failing: status.Count(held.Failing),
	}
	for _, f := range held.Faults[:min(len(held.Faults), maxErrors)] {
		s.Repositories.Errors = append(s.Repositories.Errors,
			v1alpha1.RepositoryError{
				Repository: status.Cut(f.Repository), Reason: f.Fault.Reason, Message: status.Cut(f.Fault.Error()),
			})
	}
	s.Expires, s.ExpiresFirst = "", status.Cut(held.ExpiresFirst)
	if !held.Expires.IsZero() {
		s.Expires = held.Expires.UTC().Format(time.RFC3339)
	}
	if !held.Succeeded.IsZero() {
		s.LastRefreshTime = ptr.To(metav1.NewTime(held.Succeeded.Truncate(time.Second)))
	}
	return s
}

// pinnedMessage returns the message of condition Ready where it is True: it names ignored material,
// and pins that no root carries.
func pinnedMessage(root *store.Root, held store.Status) string {
	parts := append([]string{"the keys are read, and signatures are checked against them"}, root.Notes...)
	if unseen := len(held.Unanchored); unseen > 0 {
		parts = append(parts,
			fmt.Sprintf(
				"no root in use carries the pinned key %s: compare it with 'docker trust inspect', unless it is of a "+
					"repository that was not asked for yet, or from before or after a rotation of the root",
				strings.Join(held.Unanchored[:min(unseen, maxUnanchored)], ", ")))
		if more := unseen - maxUnanchored; more > 0 {
			parts[len(parts)-1] += fmt.Sprintf(" (and %d more)", more)
		}
	}
	return strings.Join(parts, "; ")
}

// fresh returns condition Fresh: whether the server answers, and the last refresh of every
// repository succeeded that is known to be signed or needed by a running image. The message counts
// the others that could not be checked: Pods may name any, so they make it False only while no
// repository is known.
func fresh(tr *v1alpha1.TrustRoot, root *store.Root, held store.Status) metav1.Condition {
	state := func(reason, message string, ok bool) metav1.Condition {
		return status.Condition(tr, v1alpha1.ConditionFresh, reason, message, ok)
	}
	until, unknown := "", ""
	if n := held.UnknownFailing; n > 0 {
		unknown = fmt.Sprintf("; %d repositories that are not known to be signed could not be checked: "+
			"the denials of their images say why", n)
	}
	switch {
	case held.InGrace > 0:
		until = fmt.Sprintf(
			"; %d repositories have expired and are in grace (spec.expiredGrace), the first of them until %s",
			held.InGrace, held.GraceEnds.UTC().Format(time.RFC3339))
	case !held.Expires.IsZero():
		until = "; decisions go on from what was verified, until " + held.Expires.UTC().Format(time.RFC3339)
	}
	switch {
	case root.Fault != nil:
		return state(v1alpha1.ReasonTrustRootNotReady,
			"nothing is refreshed while the trust root is not Ready: "+root.Fault.Error(), false)
	case held.Base != nil && held.Base.Fault != nil:
		return state(held.Base.Fault.Reason, baseMessage(held.Base)+failingHosts(held), false)
	case held.Base != nil && !held.Base.Loaded:
		c := state(v1alpha1.ReasonNotAskedYet, "the trusted root is being fetched", false)
		c.Status = metav1.ConditionUnknown
		return c
	case !held.Probed && held.Tracked == 0 && held.Base == nil:
		c := state(v1alpha1.ReasonNotAskedYet, "the server has not answered yet", false)
		c.Status = metav1.ConditionUnknown
		return c
	case held.Server != nil:
		return state(held.Server.Reason, held.Server.Error()+failingHosts(held)+until, false)
	case held.Failing > 0:
		f := held.Faults[0]
		return state(f.Fault.Reason,
			fmt.Sprintf("%d of %d repositories could not be refreshed; the first: %s%s%s", held.Failing, held.Tracked,
				f.Fault.Error(), failingHosts(held), until+unknown), false)
	case held.Tracked == 0:
		return state(v1alpha1.ReasonNothingTracked, "no image under this trust root has been asked for yet", true)
	}
	return state(v1alpha1.ReasonRefreshed, fmt.Sprintf("repositories up to date: %d%s", held.Tracked, unknown), true)
}

// baseMessage says that the base of a trust root could not be fetched, and what that means.
func baseMessage(base *store.BaseStatus) string {
	means := "; signatures that need it cannot be checked until it is fetched"
	if base.Loaded {
		means = "; the one that was verified before stays in use"
		if !base.Expires.IsZero() {
			means += " until " + base.Expires.UTC().Format(time.RFC3339)
		}
	}
	return fmt.Sprintf("the trusted root could not be fetched: %s%s", base.Fault.Error(), means)
}

// failingHosts says which of several hosts fail, each with the reason. Of a single host the message
// says enough.
func failingHosts(held store.Status) string {
	if held.Hosts < 2 || len(held.HostFaults) == 0 {
		return ""
	}
	var hosts []string
	for _, f := range held.HostFaults[:min(len(held.HostFaults), maxHosts)] {
		hosts = append(hosts, fmt.Sprintf("%s (%s)", status.Cut(f.Host), f.Fault.Reason))
	}
	text := fmt.Sprintf("; of %d hosts, %d fail: %s", held.Hosts, len(held.HostFaults), strings.Join(hosts, ", "))
	if more := len(held.HostFaults) - maxHosts; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// expiring returns condition Expiring: whether metadata has expired, or soon will, that no refresh
// renews. What a refresh renews counts only while refreshes fail: the timestamp that a server signs
// once the last one has expired, and answers about revocation. The alert
// CountersignMetadataExpiresSoon makes the same distinction.
func expiring(tr *v1alpha1.TrustRoot, held store.Status, now time.Time, warning time.Duration) metav1.Condition {
	state := func(reason, message string, warns bool) metav1.Condition {
		return status.Condition(tr, v1alpha1.ConditionExpiring, reason, message, warns)
	}
	first, advice := held.Signed, "its signer must sign again, or extend the key; a signature or delegation that "+
		"nobody uses can be removed"
	if u := held.Unattended; held.Failing > 0 || held.Server != nil || held.Base != nil && held.Base.Fault != nil {
		if !u.NotAfter.IsZero() && (first.NotAfter.IsZero() || u.NotAfter.Before(first.NotAfter)) {
			first, advice = u, "it is renewed once its server can be reached: condition Fresh says why it cannot"
		}
	}
	at := first.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case first.NotAfter.IsZero() || first.NotAfter.Sub(now) > warning && now.Before(first.NotAfter):
		return state(v1alpha1.ReasonNothingExpiresSoon, "nothing expires soon that is not renewed by itself", false)
	case !now.Before(first.NotAfter):
		return state(v1alpha1.ReasonMetadataExpired,
			fmt.Sprintf("%s: %s expired at %s; %s", status.Cut(first.Repository), first.File, at, advice), true)
	}
	return state(v1alpha1.ReasonExpiresSoon,
		fmt.Sprintf("%s: %s expires at %s; %s", status.Cut(first.Repository), first.File, at, advice), true)
}

// untilChange returns the time until condition Expiring, or the grace in condition Fresh, changes
// without an event; at least a second, and at most a day.
func untilChange(held store.Status, now time.Time, warning time.Duration) time.Duration {
	next := 24 * time.Hour
	for _, at := range []time.Time{held.Signed.NotAfter, held.Unattended.NotAfter, held.Expires, held.GraceEnds} {
		for _, change := range []time.Duration{at.Sub(now), at.Sub(now) - warning} {
			if !at.IsZero() && change > 0 {
				next = min(next, change+time.Second)
			}
		}
	}
	return next
}
