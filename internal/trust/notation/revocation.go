package notation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/lru"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

const (
	// maxLinks bounds the certificates of the signatures on one digest that are checked.
	maxLinks = 64
	// maxServers bounds the URLs of each kind that are queried about a certificate.
	maxServers = 4
	// maxOCSP and maxCRL bound a response, in bytes.
	maxOCSP = 64 << 10
	maxCRL  = 4 << 20
	// maxRecordedAnswer bounds an answer that evidence and records hold, and maxRecordedAnswers all
	// of one digest, in bytes. A larger CRL must be fetched again after a restart.
	maxRecordedAnswer  = 64 << 10
	maxRecordedAnswers = 1 << 20
	// maxStandings and maxCRLs bound what is kept of all trust roots.
	maxStandings = 4096
	maxCRLs      = 32
	// crlCost bounds the memory that decoding takes up, by byte of a response.
	crlCost = 16

	ocspRequestType = "application/ocsp-request"
)

// responders sends requests to the servers that certificates name: *registry.Responders.
type responders interface {
	Get(ctx context.Context, from string, limit int64) ([]byte, error)
	Post(ctx context.Context, to, content string, body []byte, limit int64) ([]byte, error)
}

// link is a certificate with the certificate that issued it.
type link struct{ cert, issuer *x509.Certificate }

// linkID is the identity of a link.
type linkID [2 * sha256.Size]byte

func (l link) id() (id linkID) {
	c, i := sha256.Sum256(l.cert.Raw), sha256.Sum256(l.issuer.Raw)
	copy(id[:], c[:])
	copy(id[sha256.Size:], i[:])
	return id
}

// sources returns the URLs by which a certificate can be checked. some says that it names any
// source of revocation at all, of whatever scheme.
func (l link) sources() (ocspServers, crls []string, some bool) {
	return plainURLs(l.cert.OCSPServer), plainURLs(l.cert.CRLDistributionPoints),
		len(l.cert.OCSPServer)+len(l.cert.CRLDistributionPoints) > 0
}

// plainURLs returns the http URLs of a list.
func plainURLs(all []string) []string {
	var some []string
	for _, one := range all {
		if scheme, _, ok := strings.Cut(one, "://"); ok && strings.EqualFold(scheme, "http") &&
			!slices.Contains(some, one) {
			some = append(some, one)
		}
	}
	return some
}

// answer is what a server said about revocation, as it was signed. It is immutable.
type answer struct {
	// CRL is the URL of a CRL; empty: it is an OCSP response.
	CRL string `json:"crl,omitempty"`
	Raw []byte `json:"raw"`
}

// standing is the verified answer about a certificate.
type standing struct {
	from, end time.Time // for which the answers count
	revoked   time.Time // zero: it is not revoked
	answers   []*answer
}

// check refuses an answer that does not count now, or that says not until when it does.
func (s *standing) check(what string, now time.Time) error {
	switch {
	case s.end.IsZero():
		return fmt.Errorf("%s does not say until when it counts (nextUpdate)", what)
	case now.Add(clockSkew).Before(s.from):
		return fmt.Errorf("%s counts only from %s", what, shownTime(s.from))
	case !now.Before(s.end):
		return fmt.Errorf("%s counted until %s", what, shownTime(s.end))
	}
	return nil
}

// current reports whether the standing counts at a time.
func (s *standing) current(now time.Time) bool { return s.check("", now) == nil }

// young reports whether less than half of its time has passed. After that a new one is fetched, so
// that a server may fail for as long again.
func (s *standing) young(now time.Time) bool { return now.Before(s.from.Add(s.end.Sub(s.from) / 2)) }

// revocation checks certificates, and keeps the answers until they end. It is shared by all trust
// roots, and is safe for concurrent use.
type revocation struct {
	servers responders
	now     func() time.Time

	mu        sync.Mutex
	standings *lru.Cache // linkID -> *standing
	crls      *lru.Cache // URL -> *answer
}

func newRevocation(servers responders, now func() time.Time) *revocation {
	return &revocation{servers: servers, now: now, standings: lru.New(maxStandings), crls: lru.New(maxCRLs)}
}

// check returns the standing of a certificate. It asks the servers where none is held, or where the
// one that is held has passed half of its time. A nil standing: the certificate names no source of
// revocation. The error is a *trust.Fault.
func (r *revocation) check(ctx context.Context, l link, decode *budget.Budget) (*standing, error) {
	if _, _, some := l.sources(); !some {
		return nil, nil //nolint:nilnil // there is nothing to check
	}
	held := r.held(l)
	if held != nil && held.young(r.now()) {
		return held, nil
	}
	next, err := r.fetch(ctx, l, decode)
	switch {
	case err == nil:
		return r.keep(l, next), nil
	case held != nil:
		return held, nil
	}
	return nil, trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer).Within(
		"the certificate %q could not be checked for revocation: %w", shownName(l.cert.Subject), err)
}

// held returns the standing that is kept, nil where none counts.
func (r *revocation) held(l link) *standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.standings.Get(l.id()); ok {
		if s := found.(*standing); s.current(r.now()) { //nolint:errcheck // the cache holds nothing else
			return s
		}
	}
	return nil
}

// keep stores a standing, and returns the one to use: where a later one is kept that still counts,
// that one. An older answer, which anyone on the network can repeat, never takes its place. Only a
// later answer takes the place of one that says "revoked", even if that has ended.
func (r *revocation) keep(l link, s *standing) *standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.standings.Get(l.id()); ok {
		have := found.(*standing) //nolint:errcheck // the cache holds nothing else
		later := have.from.After(s.from) && have.current(r.now())
		if later || !have.revoked.IsZero() && s.revoked.IsZero() && !s.from.After(have.from) {
			return have
		}
	}
	r.standings.Add(l.id(), s)
	return s
}

// fetch asks the servers that a certificate names: OCSP responders first, and where none of them
// gives a verified answer, the CRLs, of which all are needed.
func (r *revocation) fetch(ctx context.Context, l link, decode *budget.Budget) (*standing, error) {
	ocspServers, crls, _ := l.sources()
	if len(ocspServers)+len(crls) == 0 {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"it names no http server for OCSP or a CRL; with revocation: Skip, no certificate is checked")
	}
	var faults []error
	for _, server := range ocspServers[:min(len(ocspServers), maxServers)] {
		s, err := r.fetchOCSP(ctx, l, server, decode)
		if err == nil {
			return s, nil
		}
		faults = append(faults, err)
	}
	if len(crls) == 0 {
		return nil, first(faults)
	}
	s, err := r.fetchCRLs(ctx, l, crls, decode)
	if err != nil {
		return nil, first(append(faults, err))
	}
	return s, nil
}

// first returns the first of several faults, with the texts of all.
func first(faults []error) error {
	return trust.AsFault(faults[0], v1alpha1.ReasonUnexpectedAnswer).Within("%w", errors.Join(faults...))
}

func (r *revocation) fetchOCSP(ctx context.Context, l link, server string, decode *budget.Budget) (*standing, error) {
	request, err := requestOCSP(l.cert, l.issuer)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "making an OCSP request: %w", err)
	}
	raw, err := r.servers.Post(ctx, server, ocspRequestType, request, maxOCSP)
	if err != nil {
		return nil, err
	}
	return r.read(ctx, l, &answer{Raw: raw}, server, decode)
}

func (r *revocation) fetchCRLs(ctx context.Context, l link, urls []string, decode *budget.Budget) (*standing, error) {
	if len(urls) > maxServers {
		return nil, trust.NewFault(
			v1alpha1.ReasonTooLarge,
			"it names %d CRLs; at most %d are read",
			len(urls),
			maxServers,
		)
	}
	var all *standing
	for _, url := range urls {
		s, err := r.fetchCRL(ctx, l, url, decode)
		if err != nil {
			return nil, err
		}
		all = all.and(s)
	}
	return all, nil
}

// fetchCRL returns the standing by one CRL, which is fetched once for all certificates. An older
// CRL never replaces a newer one that still counts.
func (r *revocation) fetchCRL(ctx context.Context, l link, url string, decode *budget.Budget) (*standing, error) {
	var held *standing
	if kept := r.crl(url); kept != nil {
		if s, err := r.read(ctx, l, kept, url, decode); err == nil {
			held = s
		}
	}
	if held != nil && held.young(r.now()) {
		return held, nil
	}
	raw, err := r.servers.Get(ctx, url, maxCRL)
	if err != nil {
		return nil, err
	}
	a := &answer{CRL: url, Raw: raw}
	s, err := r.read(ctx, l, a, url, decode)
	if err != nil {
		return nil, err
	}
	if held != nil && held.from.After(s.from) {
		return held, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.crls.Add(url, a)
	return s, nil
}

func (r *revocation) crl(url string) *answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.crls.Get(url); ok {
		return found.(*answer) //nolint:errcheck // the cache holds nothing else
	}
	return nil
}

// and joins the standings by two CRLs. s may be nil.
func (s *standing) and(other *standing) *standing {
	if s == nil {
		return other
	}
	joined := &standing{from: s.from, end: s.end, revoked: s.revoked, answers: slices.Concat(s.answers, other.answers)}
	if other.from.After(joined.from) {
		joined.from = other.from
	}
	if other.end.Before(joined.end) {
		joined.end = other.end
	}
	if joined.revoked.IsZero() {
		joined.revoked = other.revoked
	}
	return joined
}

// read verifies an answer. where names its server in a fault.
func (r *revocation) read(ctx context.Context, l link, a *answer, where string, decode *budget.Budget) (*standing,
	error) {
	release, err := bydigest.Acquire(ctx, decode, decodeFrame+crlCost*int64(len(a.Raw)))
	if err != nil {
		return nil, err
	}
	defer release()
	var s standing
	if a.CRL != "" {
		s, err = readCRL(a.Raw, a.CRL, l.cert, l.issuer, r.now())
	} else {
		s, err = readOCSP(a.Raw, l.cert, l.issuer, r.now())
	}
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", shown(where), err)
	}
	s.answers = []*answer{a}
	return &s, nil
}

// recorded returns the standing of a certificate by recorded answers, without a network, or by what
// is kept. The error is a *trust.Fault.
func (r *revocation) recorded(
	ctx context.Context,
	l link,
	answers []*answer,
	decode *budget.Budget,
) (*standing, error) {
	_, crls, some := l.sources()
	if !some {
		return nil, nil //nolint:nilnil // there is nothing to check
	}
	if s := r.held(l); s != nil {
		return s, nil
	}
	var byCRL *standing
	found := map[string]bool{}
	for _, url := range crls {
		if kept := r.crl(url); kept != nil { // it may be too large for a record
			answers = append(slices.Clip(answers), kept)
		}
	}
	for _, a := range answers {
		if a.CRL != "" && (!slices.Contains(crls, a.CRL) || found[a.CRL]) {
			continue
		}
		s, err := r.read(ctx, l, a, a.CRL, decode)
		switch {
		case err != nil: // about another certificate, or it counts no longer
		case a.CRL == "":
			return r.keep(l, s), nil
		default:
			found[a.CRL] = true
			byCRL = byCRL.and(s)
		}
	}
	if byCRL != nil && len(found) == len(crls) {
		return r.keep(l, byCRL), nil
	}
	return nil, trust.NewFault(v1alpha1.ReasonMetadataExpired,
		"the certificate %q must be checked for revocation again", shownName(l.cert.Subject))
}
