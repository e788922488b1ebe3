package sigstore

import (
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/imageref"
)

// decisive returns the attestations that a record needs to come to the same verdicts: of each
// listed signer and type, those that may decide, and all that cannot be checked now. Nil: none, or
// the newest may not be known: it may be among what was dropped unchecked. judges are those that
// have judged them all.
func (e *attestationEvidence) decisive(of *roles, judges string) *attestations {
	if e == nil || len(e.Unread) > 0 || !e.covers(of.types) || e.Judges != "" && e.Judges != judges {
		return nil
	}
	own, times := &attestations{Types: e.Types, Judges: e.Judges}, e.times()
	for i := range e.judged {
		switch j := &e.judged[i]; {
		case e.All[i].Unchecked:
			return nil
		case j.fault || j.proof != nil && of.known(j.proof) && !e.superseded(j, of, times):
			own.All = append(own.All, e.All[i])
		case j.proof != nil: // by others it may decide
			own.Judges = judges
		}
	}
	return own
}

// times returns the earliest verified time of each signature, of all its copies.
func (e *attestationEvidence) times() map[[sha256.Size]byte]time.Time {
	times := map[[sha256.Size]byte]time.Time{}
	for i := range e.judged {
		j := &e.judged[i]
		if j.proof == nil || j.proof.time.IsZero() {
			continue
		}
		if have, ok := times[j.signature]; !ok || j.proof.time.Before(have) {
			times[j.signature] = j.proof.time
		}
	}
	return times
}

// superseded reports whether a newer attestation of the same type and signer decides instead.
func (e *attestationEvidence) superseded(j *attestedJudgement, of *roles, times map[[sha256.Size]byte]time.Time) bool {
	for r := range of.attesting() {
		signer, ok := r.signer(j.proof)
		if !ok || !slices.Contains(j.types, r.predicateType) {
			continue
		}
		newer := slices.ContainsFunc(e.judged, func(other attestedJudgement) bool {
			if other.proof == nil || !slices.Contains(other.types, r.predicateType) {
				return false
			}
			by, ok := r.signer(other.proof)
			return ok && by.Entry == signer.Entry && times[other.signature].After(times[j.signature])
		})
		if !newer {
			return false
		}
	}
	return true
}

// checkRecorded refuses what no record has.
func (a *attestations) checkRecorded() error {
	for i := range a.All {
		one := &a.All[i]
		if one.Why != "" || one.Dropped || !imageref.ValidDigest(one.ID) || one.Size <= 0 ||
			one.Size > maxAttestedBytes {
			return errors.New("the record has an attestation that is none")
		}
	}
	return nil
}
