package attestation

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
)

const (
	// maxRejections bounds the rejections of a verdict, and maxTypes the other types that it names.
	maxRejections = 16
	maxTypes      = 4
)

// Verified is an envelope whose signature the caller has verified.
type Verified struct {
	// Name names the envelope in messages, as "sha256:0123456789ab in the referrers". It may be
	// empty.
	Name string
	// Signer is the listed key or identity that has signed it, and must not be revoked.
	Signer identity.Signer
	// PayloadType and Payload are what was signed.
	PayloadType string
	Payload     []byte
	// Time is the earliest time at which a log or a timestamp authority has verified that the
	// signature exists. Zero: there is none.
	Time time.Time
}

// Verdict is what a rule says about the attestations of an image. It is immutable.
type Verdict struct {
	met      []met
	rejected []trust.Rejection
	digest   string
	maxAge   time.Duration
}

// met is an attestation that meets the rule, and its signer with the time until it does.
type met struct {
	signer identity.Signer
	by     string
	time   time.Time
	aged   time.Time // when it is too old; zero: never
}

// Signed returns as many signers as the threshold needs, distinct by entry and by key, who attest
// what the rule demands. until is when the role is no longer proven by them, zero if that is never.
func (v *Verdict) Signed(threshold int, now time.Time) (signers []identity.Signer, until time.Time, ok bool) {
	all := make([]identity.Signer, 0, len(v.met))
	for _, m := range v.met {
		all = append(all, m.signer)
	}
	return identity.Quorum(all, threshold, now)
}

// Rejected returns the attestations that do not meet the rule, with the reason. The result is
// bounded.
func (v *Verdict) Rejected(now time.Time) []trust.Rejection {
	all := slices.Clone(v.rejected)
	for _, m := range v.met {
		if !m.aged.IsZero() && now.After(m.aged) && len(all) < maxRejections {
			all = append(all, trust.Rejection{By: m.by, Digest: v.digest,
				Why: fmt.Sprintf("is older than maxAge allows: it is of %s, and may be %s old",
					m.time.UTC().Format(time.RFC3339),
					duration(v.maxAge))})
		}
	}
	return all
}

// duration formats a duration as users write it: 720h, not 720h0m0s.
func duration(d time.Duration) string {
	s := d.String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}

// Judge decides about the attestations of an image. The newest of the type, by verified time,
// decides for all signers: if it does not meet the rule, the role is not proven, however many older
// ones do. Of each signer, again the newest decides. If several are the newest, all of them must
// meet the rule. If none has a verified time, all must.
//
// named reports whether the name of a subject is that of the image. If it is not nil, an
// attestation counts only if it names the image so.
func (r *Rule) Judge(digest string, named func(string) bool, all []Verified) *Verdict {
	j := judge{
		rule:    r,
		named:   named,
		verdict: &Verdict{digest: digest, maxAge: r.maxAge},
		budget:  maxTotalCost,
		reasons: map[[sha256.Size]byte]string{},
	}
	for i := range all {
		j.read(&all[i])
	}
	switch {
	case len(j.candidates) == 0:
		j.missing()
	case j.decide(j.candidates):
		for _, entry := range j.entries() {
			if own := j.of(entry); j.decide(own) {
				j.accept(newest(own))
			}
		}
	}
	return j.verdict
}

// judge is the state of one call of Judge.
type judge struct {
	rule       *Rule
	named      func(string) bool
	verdict    *Verdict
	budget     uint64                       // the cost that may still be spent
	reasons    map[[sha256.Size]byte]string // why a payload does not meet the conditions
	candidates []*Verified                  // of the type, and not known to be about other images only
	types      []string                     // of other attestations, distinct
}

// read reads one attestation. One that is of the type and cannot be read stays a candidate: it may
// be the newest.
func (j *judge) read(v *Verified) {
	if v.PayloadType != PayloadType {
		j.foreign(v, fmt.Sprintf("has a payload of the type %q, which is no statement", shown(v.PayloadType)))
		return
	}
	switch t := TypeOf(v.Payload, j.rule.predicateType); t {
	case j.rule.predicateType:
		if s, err := parse(v.Payload, t); err == nil {
			if why := s.foreign(j.verdict.digest, j.named); why != "" {
				j.reject(v, why)
				return
			}
		}
		j.candidates = append(j.candidates, v)
	case "":
		j.foreign(v, "is no statement with a type of its predicate")
	default:
		if t = shown(t); !slices.Contains(j.types, t) && len(j.types) <= maxTypes {
			j.types = append(j.types, t)
		}
	}
}

// decide reports whether those of some attestations that decide meet the rule.
func (j *judge) decide(all []*Verified) bool {
	ok := true
	for _, v := range newest(all) {
		why := j.reason(v)
		if why == "" && j.rule.maxAge > 0 && v.Time.IsZero() {
			why = "has no time that a log or a timestamp authority has verified, which maxAge needs"
		}
		if why != "" {
			j.reject(v, why)
			ok = false
		}
	}
	return ok
}

// reason returns why an attestation does not meet the conditions, empty if it does. Each payload is
// evaluated once: a registry can serve the same one many times.
func (j *judge) reason(v *Verified) string {
	id := sha256.Sum256(v.Payload)
	why, known := j.reasons[id]
	if !known {
		why = j.rule.unmet(v.Payload, &j.budget)
		j.reasons[id] = why
	}
	return why
}

// newest returns the attestations that decide: those of the newest verified time, or all of them
// where none has one.
func newest(all []*Verified) []*Verified {
	var last time.Time
	for _, v := range all {
		if v.Time.After(last) {
			last = v.Time
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(v *Verified) bool { return !v.Time.Equal(last) })
}

// entries returns the entries of the signers, sorted.
func (j *judge) entries() []string {
	var all []string
	for _, v := range j.candidates {
		all = append(all, v.Signer.Entry)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// of returns the attestations of one entry.
func (j *judge) of(entry string) []*Verified {
	return slices.DeleteFunc(slices.Clone(j.candidates), func(v *Verified) bool { return v.Signer.Entry != entry })
}

// accept counts the signers of attestations that meet the rule.
func (j *judge) accept(all []*Verified) {
	for _, v := range all {
		signer, aged := v.Signer, time.Time{}
		if j.rule.maxAge > 0 {
			aged = v.Time.Add(j.rule.maxAge)
			if signer.Until.IsZero() || aged.Before(signer.Until) {
				signer.Until = aged
			}
		}
		j.verdict.met = append(j.verdict.met, met{signer: signer, by: j.name(v), time: v.Time, aged: aged})
	}
}

// missing says that there is no attestation of the type, and which others there are.
func (j *judge) missing() {
	why := "is missing"
	if len(j.types) > 0 {
		shown, more := j.types[:min(len(j.types), maxTypes)], ""
		if len(j.types) > maxTypes {
			more = " and others"
		}
		why += ": the attestations are of the type " + strings.Join(shown, ", ") + more
	}
	j.add(trust.Rejection{By: "an attestation of the type " + shown(j.rule.predicateType), Digest: j.verdict.digest,
		Why: why})
}

// reject says why an attestation does not count.
func (j *judge) reject(v *Verified, why string) {
	j.add(trust.Rejection{By: j.name(v), Digest: j.verdict.digest, Why: why})
}

// foreign says why an envelope is no attestation.
func (j *judge) foreign(v *Verified, why string) {
	j.add(trust.Rejection{By: "an envelope" + in(v), Digest: j.verdict.digest, Why: why})
}

func (j *judge) add(r trust.Rejection) {
	if len(j.verdict.rejected) < maxRejections && !slices.Contains(j.verdict.rejected, r) {
		j.verdict.rejected = append(j.verdict.rejected, r)
	}
}

// name names an attestation of the type in messages.
func (j *judge) name(v *Verified) string {
	return "an attestation (" + text.Cut(j.rule.predicateType, maxShown) + ")" + in(v)
}

// in names the envelope of an attestation in messages.
func in(v *Verified) string {
	if v.Name == "" {
		return ""
	}
	return " in " + text.Cut(v.Name, maxShown)
}
