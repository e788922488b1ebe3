package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
)

func (h *held) graced(d time.Duration) *held {
	h.grace = d
	return h
}

// Expired evidence, as a whole or of one role, is used only within the grace and always with a
// warning.
func TestThreatGraceEnds(t *testing.T) {
	at := func(d time.Duration) time.Time { return now.Add(d) }
	all := func() *held { return signed("ci v1 a", "qa v1 a") }
	cases := map[string]struct {
		held    *held
		verdict policy.Verdict
		warning string // part of the wanted warning; empty: no warning
	}{
		"valid":             {all().until(at(time.Hour)).graced(time.Hour), policy.Admitted, ""},
		"expired, no grace": {all().until(at(-time.Second)), policy.CouldNotCheck, ""},
		"expired, in grace": {
			all().until(at(-time.Minute)).graced(time.Hour), policy.Admitted,
			`spec.expiredGrace of TrustRoot "acme-notary", until 2026-03-01T12:59:00Z: timestamp.json of registry.example.com/acme/app expired at 2026-03-01T11:59:00Z`,
		},
		"the last moment of grace": {
			all().until(at(-time.Hour + 1)).graced(time.Hour), policy.Admitted, "spec.expiredGrace",
		},
		"grace over":       {all().until(at(-time.Hour)).graced(time.Hour), policy.CouldNotCheck, ""},
		"a negative grace": {all().until(at(time.Minute)).graced(-time.Hour), policy.Admitted, ""},
		"a role, no grace": {all().lasting("qa", at(-time.Minute)), policy.Denied, ""},
		"a role, in grace": {
			all().lasting("qa", at(-time.Minute)).graced(time.Hour), policy.Admitted,
			`the signature of qa expired at 2026-03-01T11:59:00Z`,
		},
		"a role, grace over": {all().lasting("qa", at(-time.Hour)).graced(time.Hour), policy.Denied, ""},
		"a role that is not needed": {
			signed("ci v1 a", "qa v1 a", "dev v1 a").lasting("dev", at(-time.Minute)).graced(time.Hour),
			policy.Admitted, "",
		},
		"another digest, in grace": {
			signed("ci v1 a", "qa v1 a", "ci v1 b").lasting("ci", at(time.Hour)).graced(time.Hour), policy.Admitted, "",
		},
		"not signed, in grace": {signed("ci v1 a").until(at(-time.Minute)).graced(time.Hour), policy.Denied, ""},
		"both expired, one over the": {
			all().lasting("qa", at(-2*time.Hour)).until(at(-time.Minute)).graced(time.Hour), policy.Denied, "",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := decide(app, roots{"acme-notary": c.held}, compiled(t, "production"))
			if d.Verdict != c.verdict {
				t.Fatalf("verdict %v (%s), want %v", d.Verdict, d.Message, c.verdict)
			}
			if warned := strings.Join(d.Warnings, "\n"); (c.warning == "") != (warned == "") ||
				!strings.Contains(warned, c.warning) {
				t.Errorf("warnings %q, want %q", warned, c.warning)
			}
		})
	}
	t.Run("a second root that is valid needs no warning", func(t *testing.T) {
		d := decide(app, roots{"old": all().until(at(-time.Minute)).graced(time.Hour), "new": all()},
			compiled(t, "production", from("old", "new")))
		if d.Verdict != policy.Admitted || len(d.Warnings) > 0 {
			t.Errorf("verdict %v, warnings %q", d.Verdict, d.Warnings)
		}
	})
	t.Run("the denial says that the grace is over", func(t *testing.T) {
		d := decide(app, roots{"acme-notary": all().until(at(-2 * time.Hour)).graced(time.Hour)},
			compiled(t, "production"))
		if !strings.Contains(d.Message, "more than spec.expiredGrace (1h0m0s) ago") ||
			d.Outcomes[0].Reason != v1alpha1.ReasonMetadataExpired {
			t.Errorf("%s: %s", d.Outcomes[0].Reason, d.Message)
		}
	})
}
