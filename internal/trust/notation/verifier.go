package notation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// decodeCost bounds the memory that decoding and verifying a signature takes up, by byte of it, and
// decodeFrame what any takes up. CBOR has values of one byte, and is decoded several times.
const (
	decodeCost  = 128
	decodeFrame = 256 << 10
)

// verifier is the bydigest.Verifier of the format.
type verifier struct {
	registry registries
	roles    *roles
	// revocation checks certificates; nil: none is checked.
	revocation *revocation
	budget     *budget.Budget
	now        func() time.Time
	packer     bydigest.Packer
}

// Fetch implements bydigest.Verifier. What cannot be fetched is a fault of the evidence, which
// keeps in its place what was fetched before. It is an error where nothing is left that was
// verified.
func (v *verifier) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	before, have := v.held(held)
	found := v.collect(ctx, about, before)
	switch {
	case found.unread && have != nil && !have.current(v.now()):
		found.Signatures = before.Signatures // they may count again once they are checked for revocation
	case found.unread, len(found.Signatures) == 0 && len(found.faults) > 0:
		return nil, found.faults[0]
	case len(found.Signatures) == 0:
		return trust.Unsigned{}, nil
	}
	next, err := v.verify(ctx, about, &found.collection, v.online)
	if err != nil {
		return nil, err
	}
	next.faults = append(found.faults, next.faults...)
	if len(next.faults) > 0 && !next.Signed() {
		return nil, next.faults[0]
	}
	if have != nil && len(have.faults) == 0 && len(next.faults) == 0 && have.same(next) && have.current(v.now()) {
		return held, nil
	}
	return next, nil
}

// current reports whether the evidence has not expired.
func (e *evidence) current(now time.Time) bool { return e.expiry.IsZero() || now.Before(e.expiry) }

// same reports whether two evidences rest on the same signatures and answers, and prove the same.
func (e *evidence) same(other *evidence) bool {
	return bytes.Equal(e.packed, other.packed) && slices.Equal(e.answers, other.answers) &&
		slices.EqualFunc(
			e.judged,
			other.judged,
			func(a, b judgement) bool { return a.why == b.why && a.until == b.until },
		)
}

// held returns the signatures in held evidence.
func (v *verifier) held(held trust.Evidence) (*collection, *evidence) {
	have, ok := held.(*evidence)
	if !ok || have.verifier != v {
		return &collection{}, nil
	}
	c, err := unpack(have.packed)
	if err != nil {
		return &collection{}, nil // then everything is fetched anew
	}
	if have.again {
		c.Signatures = slices.DeleteFunc(c.Signatures, func(s kept) bool { return s.Dropped })
	}
	return c, have
}

// checkLink returns the standing of a certificate. The error is a *trust.Fault.
type checkLink func(ctx context.Context, l link) (*standing, error)

// guarded returns a panic as an error. It would otherwise end the process: it is not in the
// goroutine of the fetch.
func (check checkLink) guarded(ctx context.Context, l link) (s *standing, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s, err = nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "checking the certificate %q for revocation "+
				"broke off: %v", shownName(l.cert.Subject), cause)
		}
	}()
	return check(ctx, l)
}

// online checks a certificate by the servers that it names.
func (v *verifier) online(ctx context.Context, l link) (*standing, error) {
	return v.revocation.check(ctx, l, v.budget)
}

// offline checks a certificate by recorded answers.
func (v *verifier) offline(answers []*answer) checkLink {
	return func(ctx context.Context, l link) (*standing, error) {
		return v.revocation.recorded(ctx, l, answers, v.budget)
	}
}

// verify judges every signature of a collection.
func (v *verifier) verify(ctx context.Context, about trust.Subject, c *collection, check checkLink) (*evidence, error) {
	e := &evidence{digest: about.Digest, verifier: v, judged: make([]judgement, len(c.Signatures))}
	chains := make([][]link, len(c.Signatures))
	for i := range c.Signatures {
		var err error
		if e.judged[i], chains[i], err = v.judge(ctx, about, &c.Signatures[i]); err != nil {
			e.judged[i].fault = trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
			e.faults = append(e.faults, e.judged[i].fault)
		}
	}
	if v.revocation != nil {
		e.checkRevocation(ctx, chains, check)
	}
	e.prove(v.roles)
	e.shed(c)
	var err error
	if e.packed, err = v.packer.Pack(&collection{Signatures: c.Signatures}); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	return e, nil
}

// judge verifies one signature, but for revocation, and returns the certificates to check for that.
// It returns none where nothing is known to come from a CA of a role: a certificate that anyone
// made could name any server. The error is a *trust.Fault.
func (v *verifier) judge(ctx context.Context, about trust.Subject, s *kept) (judgement, []link, error) {
	if s.Why != "" || s.Copy {
		return judgement{why: s.Why, copied: s.Copy}, nil, nil
	}
	release, err := bydigest.Acquire(ctx, v.budget, decodeFrame+decodeCost*int64(len(s.Envelope)))
	if err != nil {
		return judgement{}, nil, err
	}
	defer release()
	c, err := readClaim(s.MediaType, s.Envelope, about.Digest)
	if err != nil {
		return judgement{why: err.Error()}, nil, nil
	}
	j, links := v.roles.judge(c, v.now())
	return j, links, nil
}

// judge says for which roles a signature counts.
func (r *roles) judge(c *claim, now time.Time) (j judgement, links []link) {
	j.subject = shownName(c.leaf().Subject)
	top, issued := 0, ""
	for i := range r.all {
		at, ok := r.all[i].anchor(c.chain)
		switch {
		case !ok:
		case !r.all[i].names(c.leaf()):
			issued = r.all[i].name
		default:
			j.roles = append(j.roles, r.all[i].name)
			top = max(top, at)
		}
	}
	switch {
	case len(j.roles) == 0 && issued == "":
		j.why = "with a chain in which no certificate is of a role's trust store"
		return j, nil
	case len(j.roles) == 0:
		j.why = fmt.Sprintf("and its subject is none of the identities of role %q", issued)
		return j, nil
	}
	j.by, j.signature = keyID(c.leaf()), sha256.Sum256(c.signature)
	v, err := r.validityOf(c, now)
	revoked := r.revokedIn(slices.Concat(c.chain, v.stamp))
	switch {
	case revoked != nil:
		j.why = fmt.Sprintf("and spec.revokedKeys lists the key of the certificate %q", shownName(revoked.Subject))
	case err != nil:
		j.why = "in a signature that " + err.Error()
	case !c.expiry.IsZero() && !now.Before(c.expiry):
		j.why = "in a signature that expired at " + shownTime(c.expiry)
	default:
		if err := verifyPath(c.chain[:top+1], v.at); err != nil {
			j.why = "in a signature whose chain does not verify: " + shown(err.Error())
		}
	}
	if j.why != "" {
		return j, nil
	}
	j.until = ending{at: v.end, what: v.ends}
	if !c.expiry.IsZero() {
		j.until = j.until.first(ending{at: c.expiry, what: "the signature by " + j.subject})
	}
	for i := range top {
		links = append(links, link{cert: c.chain[i], issuer: c.chain[i+1]})
	}
	for i := range len(v.stamp) - 1 {
		links = append(links, link{cert: v.stamp[i], issuer: v.stamp[i+1]})
	}
	return j, links
}

// verifyPath verifies a chain up to a certificate of the trust store by RFC 5280, section 6: the
// constraints of names, of key usage and of critical extensions, too.
func verifyPath(chain []*x509.Certificate, at time.Time) error {
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for _, cert := range chain[1:] {
		others.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: others,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	return err
}

// checkRevocation checks the certificates of the signatures that would count, each once.
func (e *evidence) checkRevocation(ctx context.Context, chains [][]link, check checkLink) {
	type result struct {
		link
		standing *standing
		err      error
	}
	results, order := map[linkID]*result{}, []*result{}
	for _, chain := range chains {
		for _, l := range chain {
			if id := l.id(); results[id] == nil {
				results[id] = &result{link: l}
				order = append(order, results[id])
			}
		}
	}
	var all errgroup.Group
	all.SetLimit(parallel)
	for i, one := range order {
		if i >= maxLinks {
			one.err = trust.NewFault(
				v1alpha1.ReasonTooLarge,
				"the signatures have %d certificates to check for revocation; at most %d are checked",
				len(order),
				maxLinks,
			)
			continue
		}
		all.Go(func() error {
			one.standing, one.err = check.guarded(ctx, one.link)
			return nil
		})
	}
	_ = all.Wait() // no function returns an error
	for i, chain := range chains {
		for _, l := range chain {
			one := results[l.id()]
			e.judged[i].fold(one.link, one.standing, one.err)
		}
		j := &e.judged[i]
		if j.why != "" {
			j.fault = nil
		}
		if j.fault != nil && !slices.Contains(e.faults, j.fault) {
			e.faults = append(e.faults, j.fault)
		}
	}
	recorded := 0
	for _, one := range order {
		if one.standing == nil {
			continue
		}
		for _, a := range one.standing.answers {
			if len(a.Raw) > maxRecordedAnswer || recorded+len(a.Raw) > maxRecordedAnswers ||
				slices.Contains(e.answers, a) {
				continue
			}
			recorded += len(a.Raw)
			e.answers = append(e.answers, a)
		}
	}
}

// fold adds the standing of a certificate to the judgement of its signature.
func (j *judgement) fold(l link, s *standing, err error) {
	switch {
	case err != nil:
		if j.fault == nil {
			j.fault = trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer)
		}
	case s == nil || j.why != "":
	case !s.revoked.IsZero():
		j.why = fmt.Sprintf("and the certificate %q was revoked at %s", shownName(l.cert.Subject), shownTime(s.revoked))
	default:
		j.until = j.until.first(ending{
			at: s.end, what: "the revocation answer about " + shownName(l.cert.Subject), again: true,
		})
	}
}

// Recheck implements bydigest.Verifier.
func (v *verifier) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	have, ok := held.(*evidence)
	if !ok || have.digest != about.Digest {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the evidence is not of this format", about)
	}
	c, err := unpack(have.packed)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: %w", about, err)
	}
	next, err := v.verify(context.Background(), about, c, v.offline(have.answers))
	if err != nil {
		return nil, err
	}
	next.faults, next.again = append(slices.Clone(have.unfetched()), next.faults...), true
	return next, nil
}

// unfetched returns the faults of what could not be fetched from the registry. Those of signatures
// are found anew.
func (e *evidence) unfetched() []*trust.Fault {
	return slices.DeleteFunc(slices.Clone(e.faults), func(f *trust.Fault) bool {
		return slices.ContainsFunc(e.judged, func(j judgement) bool { return j.fault == f })
	})
}
