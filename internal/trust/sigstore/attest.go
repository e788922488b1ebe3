package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/attestation"
)

// attestedCost bounds the memory that verifying an attestation takes up, by byte of it.
const attestedCost = 12

// attestationEvidence is what was verified about the attestations on one digest. It is immutable.
type attestationEvidence struct {
	attestations
	judged   []attestedJudgement // one for each attestation
	verdicts map[string]*attestation.Verdict
}

// attestedJudgement is the outcome for one attestation.
type attestedJudgement struct {
	types []string // those of its predicate that a role needs: one, or none
	proof *proof   // nil: it is none, or could not be checked
	why   string   // the rest of a sentence that begins with the attestation
	fault bool     // it could not be checked
	// copied says that another one with the same signature stands for it.
	copied    bool
	signature [sha256.Size]byte // the hash of the signature itself, with a proof
}

// sealed is an attestation that was read: who claims to have signed what.
type sealed struct {
	claim
	payloadType string
	payload     []byte
}

// read reads an attestation. The error says why it is none, in the rest of a sentence that begins
// with it.
func (a *attested) read() (*sealed, error) {
	data, err := a.expand()
	if err != nil {
		return nil, errors.New("cannot be uncompressed")
	}
	if n, ok := jsonscan.Count(data, maxValues); !ok || n == maxValues {
		return nil, errors.New("is not JSON, or is too large")
	}
	if a.Layout == layoutTag {
		content := &bundle.Envelope{Envelope: &dsse.Envelope{}}
		if err := json.Unmarshal(data, content.Envelope); err != nil {
			return nil, errors.New("is no DSSE envelope")
		}
		return readDSSEEnvelope(content, a.material())
	}
	b, material, err := parseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("is no Sigstore bundle of a version from 0.1 to 0.3: %s", shown(err.Error()))
	}
	content, err := b.SignatureContent()
	if err != nil || content.EnvelopeContent() == nil {
		return nil, errors.New("has no DSSE envelope")
	}
	return readDSSEEnvelope(content, material)
}

// readDSSEEnvelope reads the envelope of an attestation.
func readDSSEEnvelope(content verify.SignatureContent, material *material) (*sealed, error) {
	raw := content.EnvelopeContent().RawEnvelope()
	if len(raw.Signatures) != 1 {
		return nil, fmt.Errorf("has %d signatures, where an envelope has one", len(raw.Signatures))
	}
	sig, err := base64.StdEncoding.DecodeString(raw.Signatures[0].Sig)
	if err != nil || len(sig) == 0 {
		return nil, errors.New("has no readable signature")
	}
	payload, err := raw.DecodeB64Payload()
	if err != nil {
		return nil, errors.New("has a payload that is not base64")
	}
	signed := dsse.PAE(raw.PayloadType, payload)
	return &sealed{
		payloadType: raw.PayloadType, payload: payload,
		claim: claim{
			signature: sig, material: material,
			signedBy: func(k *key) bool { return k.signed(signed, sig) },
			content:  func(string) (verify.SignatureContent, error) { return content, nil },
		},
	}, nil
}

// attest judges the attestations on a digest, for each role that needs any. What could not be
// checked is a fault, and leaves those roles unproven: it might be the newest of its type.
func (v *verifier) attest(ctx context.Context, about trust.Subject, of *attestations) (*attestationEvidence,
	[]*trust.Fault) {
	if len(v.roles.types) == 0 {
		return nil, nil
	}
	e := &attestationEvidence{attestations: *of, verdicts: map[string]*attestation.Verdict{}}
	var faults []*trust.Fault
	verified := map[string]*distinct{} // by role
	unchecked := len(of.Unread) > 0
	if of.Judges != "" && of.Judges != v.judges() {
		unchecked = true
		faults = append(faults, trust.NewFault(v1alpha1.ReasonMetadataMissing,
			"%s: attestations must be fetched again, since the trust root has changed and not all of them were kept; "+
				"try again", about))
	}
	if !of.covers(v.roles.types) {
		unchecked = true
		faults = append(faults, trust.NewFault(v1alpha1.ReasonMetadataMissing,
			"%s: the attestations have not been fetched yet", about))
	}
	for i := range of.All {
		j, signed, err := v.judgeAttested(ctx, &of.All[i])
		if err != nil {
			faults, unchecked = append(faults, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)), true
			j = attestedJudgement{fault: true}
		}
		e.judged = append(e.judged, j)
		if signed == nil {
			continue
		}
		for r := range v.roles.attesting() {
			if signer, ok := r.signer(j.proof); ok {
				one := *signed
				one.Signer, one.Name = signer, of.All[i].name()+" of "+j.proof.name()
				verified[r.name] = verified[r.name].with(j.signature, one)
			}
		}
	}
	e.shed(v)
	if unchecked {
		return e, faults
	}
	var names func(string) bool
	if v.match {
		names = func(name string) bool { return (&claim{repository: name}).names(about.Repository) }
	}
	for r := range v.roles.attesting() {
		all := verified[r.name].list()
		release, err := bydigest.Acquire(ctx, v.budget, attestation.Cost(all))
		if err != nil {
			return e, append(faults, trust.AsFault(err, v1alpha1.ReasonTooLarge))
		}
		e.verdicts[r.name] = r.rule.Judge(about.Digest, names, all)
		release()
	}
	return e, faults
}

// distinct are attestations without copies of one signature.
type distinct struct {
	all []attestation.Verified
	at  map[[sha256.Size]byte]int
}

// with adds an attestation. Of two copies, the one with the earlier verified time counts: anyone
// may have another authority timestamp an old attestation, so that it would seem to be the newest.
// One without a time counts only if none has any. d may be nil.
func (d *distinct) with(signature [sha256.Size]byte, one attestation.Verified) *distinct {
	if d == nil {
		d = &distinct{at: map[[sha256.Size]byte]int{}}
	}
	i, ok := d.at[signature]
	if !ok {
		d.at[signature] = len(d.all)
		d.all = append(d.all, one)
		return d
	}
	if have := d.all[i].Time; have.IsZero() || !one.Time.IsZero() && one.Time.Before(have) {
		d.all[i] = one
	}
	return d
}

func (d *distinct) list() []attestation.Verified {
	if d == nil {
		return nil
	}
	return d.all
}

// attestAgain is attest, which it spares where nothing has changed since.
func (v *verifier) attestAgain(ctx context.Context, about trust.Subject, of *attestations, have *evidence,
	trusted string) (*attestationEvidence, []*trust.Fault) {
	if have != nil && have.attested != nil && have.trusted == trusted && have.attested.same(of) &&
		have.attested.settled(v.roles) {
		return have.attested, nil
	}
	return v.attest(ctx, about, of)
}

// settled reports whether there is a verdict for each role.
func (e *attestationEvidence) settled(of *roles) bool {
	for r := range of.attesting() {
		if e.verdicts[r.name] == nil {
			return false
		}
	}
	return true
}

// cost bounds the memory that verifying the attestation takes up. All but the statement is as small
// as in a signature.
func (a *attested) cost() int64 {
	return decodeFrame + attestedCost*a.Size + decodeCost*(min(a.Size, maxSignature)+int64(a.bytes()))
}

// judgeAttested verifies one attestation. verified is nil if no listed signer has made it. The
// error is a *trust.Fault.
func (v *verifier) judgeAttested(ctx context.Context, a *attested) (j attestedJudgement,
	verified *attestation.Verified, err error) {
	if a.Why != "" {
		return attestedJudgement{why: a.Why}, nil, nil
	}
	if a.Copy {
		return attestedJudgement{copied: true}, nil, nil
	}
	if a.Unchecked {
		return j, nil, v.dropped("an attestation")
	}
	release, err := bydigest.Acquire(ctx, v.budget, a.cost())
	if err != nil {
		return j, nil, err
	}
	defer release()
	read, err := a.read()
	if err != nil {
		return attestedJudgement{why: err.Error()}, nil, nil
	}
	if j.proof, err = v.prove(&read.claim); err != nil {
		return j, nil, err
	}
	j.types, j.signature = v.roles.typesOf(read), sha256.Sum256(read.signature)
	if !v.roles.known(j.proof) {
		return j, nil, nil
	}
	return j, &attestation.Verified{PayloadType: read.payloadType, Payload: read.payload, Time: j.proof.time}, nil
}

// typesOf returns which of the types that roles need an attestation has. A statement may name two,
// so that no role can read it.
func (r *roles) typesOf(read *sealed) []string {
	if read.payloadType != attestation.PayloadType {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.types), func(t string) bool {
		return attestation.TypeOf(read.payload, t) != t
	})
}

// name names an attestation in messages.
func (a *attested) name() string {
	if a.Layout == layoutTag {
		return "a layer of cosign's tag"
	}
	return "a Sigstore bundle"
}

// statements returns the roles that attestations prove, as long as these count.
func (e *attestationEvidence) statements(digest string, of *roles) []trust.Statement {
	var all []trust.Statement
	for r := range of.attesting() {
		verdict := e.verdicts[r.name]
		if verdict == nil {
			continue
		}
		// At the beginning of time all count. A decision drops what has ended.
		signers, until, ok := verdict.Signed(r.threshold, time.Time{})
		if !ok {
			continue
		}
		st := trust.Statement{Digest: digest, Role: r.name, NotAfter: until}
		for _, s := range signers {
			st.Keys = append(st.Keys, s.Key)
		}
		slices.Sort(st.Keys)
		all = append(all, st)
	}
	return all
}

// signed reports whether a signer of the trust root has signed an attestation.
func (e *attestationEvidence) signed(of *roles) bool {
	return e != nil && slices.ContainsFunc(e.judged, func(j attestedJudgement) bool {
		return j.proof != nil && of.known(j.proof)
	})
}

// unchecked reports whether an attestation could not be checked.
func (e *attestationEvidence) unchecked() bool {
	return e != nil && slices.ContainsFunc(e.judged, func(j attestedJudgement) bool { return j.fault })
}

// rejected says why attestations do not prove a role.
func (e *attestationEvidence) rejected(r *role, of *roles, now time.Time) []trust.Rejection {
	if e == nil || e.verdicts[r.name] == nil {
		return nil // the faults say why
	}
	var all []trust.Rejection
	verdict := e.verdicts[r.name]
	if signers, _, ok := verdict.Signed(r.threshold, now); !ok && len(signers) > 0 {
		all = append(all, trust.Rejection{By: fmt.Sprintf("an attestation (%s)", shown(r.predicateType)),
			Why: fmt.Sprintf("is signed by %d of the %d signers that role %q needs", len(signers), r.threshold,
				r.name)})
	}
	for _, rejection := range verdict.Rejected(now) {
		rejection.Digest = ""
		all = append(all, rejection)
	}
	for i := range e.judged {
		j := &e.judged[i]
		if rejection, ok := j.explain(&e.All[i], r, of); ok {
			all = append(all, rejection)
		}
	}
	return all
}

// explain says why an attestation does not count for a role, unless its rule says it.
func (j *attestedJudgement) explain(of *attested, r *role, all *roles) (trust.Rejection, bool) {
	by := fmt.Sprintf("an attestation (%s) in %s", shown(r.predicateType), of.name())
	switch p := j.proof; {
	case j.fault || j.copied:
		return trust.Rejection{}, false
	case p == nil:
		return trust.Rejection{By: "an attestation in " + of.name(), Why: j.why}, true
	case !slices.Contains(j.types, r.predicateType):
		return trust.Rejection{}, false
	case !all.known(p):
		return trust.Rejection{By: by, Why: p.stranger()}, true
	}
	if _, ok := r.signer(j.proof); ok {
		return trust.Rejection{}, false
	}
	why := "is signed by " + j.proof.name() + ", " + all.foreign(j.proof, []*role{r})
	return trust.Rejection{By: by, Why: why}, true
}

// memory is about how much memory the evidence takes up, in bytes.
func (e *attestationEvidence) memory() int64 {
	if e == nil {
		return 0
	}
	const each, verdict = 1 << 10, 16 << 10
	return e.size() + int64(len(e.judged)*each+len(e.verdicts)*verdict)
}
