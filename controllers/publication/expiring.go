package publication

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/store"
)

// expiring says whether metadata has expired or is about to, and no refresh is going to mend it.
// The alert CountersignMetadataExpiresSoon makes the same distinction: what the server signs anew
// by itself, and only once it has expired, is worth a warning only while the server cannot be
// asked.
func expiring(tr *v1alpha1.TrustRoot, held store.Status, now time.Time, warning time.Duration) metav1.Condition {
	state := func(reason, message string, warns bool) metav1.Condition {
		return status.Condition(tr, v1alpha1.ConditionExpiring, reason, message, warns)
	}
	first, advice := held.Signed, "whoever holds its key must sign it anew, by publishing to the repository; a "+
		"delegation that nobody uses can be removed"
	if u := held.Unattended; held.Failing > 0 || held.Server != nil {
		if !u.NotAfter.IsZero() && (first.NotAfter.IsZero() || u.NotAfter.Before(first.NotAfter)) {
			first, advice = u, "the signing server signs it anew once it can be asked: condition Fresh says why it "+
				"cannot"
		}
	}
	at := first.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case first.NotAfter.IsZero() || first.NotAfter.Sub(now) > warning && now.Before(first.NotAfter):
		return state(v1alpha1.ReasonNothingExpiresSoon, "nothing expires soon that is not signed anew by itself", false)
	case !now.Before(first.NotAfter):
		return state(v1alpha1.ReasonMetadataExpired,
			fmt.Sprintf("%s: %s expired at %s; %s", status.Cut(first.Repository), first.File, at, advice), true)
	}
	return state(v1alpha1.ReasonExpiresSoon,
		fmt.Sprintf("%s: %s expires at %s; %s", status.Cut(first.Repository), first.File, at, advice), true)
}

// untilTurn is the time until Expiring, or what Fresh says of a grace, turns by itself; at least a
// second, and at most a day.
func untilTurn(held store.Status, now time.Time, warning time.Duration) time.Duration {
	next := 24 * time.Hour
	for _, at := range []time.Time{held.Signed.NotAfter, held.Unattended.NotAfter, held.Expires, held.GraceEnds} {
		for _, turn := range []time.Duration{at.Sub(now), at.Sub(now) - warning} {
			if !at.IsZero() && turn > 0 {
				next = min(next, turn+time.Second)
			}
		}
	}
	return next
}
