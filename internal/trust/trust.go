// Package trust says what a trust root proves: which role has signed which digest of a repository.
// The formats, one sub-package each, verify signatures; this package holds the types that they and
// the policy share.
//
// Three outcomes are kept apart from here upwards. "Signed" is a Statement. "Not signed" is the
// absence of one in evidence that was verified. "Could not check" is a Fault: it says nothing about
// the image, is never kept as a verdict, and denies. An Evidence exists only where a subject was
// verified in full, or was found to carry no signatures at all; a nil Evidence proves nothing.
package trust

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// ErrNotFound says that a signing server or registry has answered, by its own protocol, that
// something does not exist. A response that merely looks like it, such as a proxy's 404 page, is a
// Fault.
var ErrNotFound = errors.New("not found")

// NotFound is an ErrNotFound with the error code that came with it. All protocols derived from the
// distribution protocol share one form of errors, with codes of their own: only the format knows
// whether the code belongs to its protocol.
type NotFound struct {
	// Code is the server's error code, empty where it is not known. It is bounded, and unverified.
	Code string
}

func (e *NotFound) Error() string { return fmt.Sprintf("%s: %s", e.Code, ErrNotFound) }

// Is makes it an ErrNotFound.
func (*NotFound) Is(target error) bool { return target == ErrNotFound }

// Statement is one verified fact: Role has signed Digest.
type Statement struct {
	// Digest is the manifest or index digest that was signed, as "sha256:" and 64 lower-case
	// hexadecimal digits.
	Digest string
	// Tag is the tag that the signature names, empty where the format signs digests only.
	Tag string
	// Role is the role, as policies name it, whose threshold of distinct keys was met.
	Role string
	// Keys are the canonical IDs of the distinct keys that were counted, sorted.
	Keys []string
	// NotAfter is when the signatures expire; past it the statement is not true. Zero: never.
	NotAfter time.Time
	// TagOnly says that the signature is for references with Tag alone. An image that is named by
	// its digest alone does not meet a role by it. What runs is judged by its digest, and does.
	TagOnly bool
}

// Evidence is what a trust root has verified about one subject. It is immutable, holds everything
// in memory, and is safe for concurrent use. Its type must be comparable, a pointer: callers detect
// unchanged evidence by comparing.
type Evidence interface {
	// Hints returns the digests that a tag may mean according to the registry, which proves
	// nothing. A format that signs tags has none: its statements name the digests. The result is
	// bounded, shared, and must not be changed.
	Hints(tag string) []string
	// Statements returns the roles that have signed a digest: for the tag, where the format signs
	// tags, and else whatever the tag. An empty tag stands for any, and an empty digest for each
	// digest that is known here. They are sorted by digest, role and tag. The caller drops those
	// past their NotAfter, and must not change the result.
	Statements(tag, digest string) []Statement
	// Rejected returns signatures that exist or were expected, and do not prove any of some roles,
	// with the reason. It serves the text of a denial alone, and may take longer than a decision.
	// An empty tag or digest stands for any. The result is bounded.
	Rejected(roles []string, tag, digest string) []Rejection
	// Signed reports whether there is any signature, whoever made it. A registry's hint is none.
	Signed() bool
	// Faults returns what could not be checked beside the verified evidence: one layout, or one
	// signature. It is bounded.
	Faults() []*Fault
	// Expiry returns when the evidence as a whole expires, and the signed file that expires then.
	// Past it, the subject can no longer be checked. Zero: never.
	Expiry() (notAfter time.Time, file string)
}

// Sized is an Evidence that knows how much memory it takes up.
type Sized interface {
	// Size returns an upper bound in bytes. Memory shared with other evidence counts for each.
	Size() int64
}

// Dated is an Evidence that knows when each of its files expires.
type Dated interface {
	// Files returns them in the order of trust. The result is shared and must not be changed.
	Files() []File
}

// Anchored is an Evidence that knows which anchors of its Root it has.
type Anchored interface {
	// Anchors returns the IDs of those that occur in what was verified. The result is shared and
	// must not be changed.
	Anchors() []string
}

// Anchors is a Root whose trust is anchored in single keys, each of which some repository should
// have.
type Anchors interface {
	// Anchors returns the IDs of the keys, sorted.
	Anchors() []string
}

// File is one signed file of a repository.
type File struct {
	// Name is what an administrator knows it by, as "targets/qa.json".
	Name string
	// NotAfter is when it expires.
	NotAfter time.Time
	// Unattended says that the server signs the file by itself, and only once it has expired: while
	// the server can be reached, an expiry soon needs no warning.
	Unattended bool
	// Part says that only the statements of some roles expire with it, and not the whole evidence.
	Part bool
	// Kind is the kind of file in metrics. A format has few kinds: "targets", "delegation".
	Kind string
}

// Rejection is a signature, existing or expected, that does not prove a role, and why. It never
// counts for anything.
type Rejection struct {
	// By names the signer or the file, in the words of the format: "targets/qa.json".
	By string
	// Digest is what By has signed. Empty: the rejection is not about one digest.
	Digest string
	// Void says that none of By's signatures count, so that it is unknown which of them concern the
	// image. Digest is then empty.
	Void bool
	// Why is the rest of the sentence that begins with By: the reason, and what to do about it.
	Why string
}

// Sentence returns the rejection as a sentence without its end. shown returns a digest as it is to
// be shown.
func (r Rejection) Sentence(shown func(digest string) string) string {
	if r.Digest == "" {
		return r.By + " " + r.Why
	}
	return fmt.Sprintf("%s signed %s, %s", r.By, shown(r.Digest), r.Why)
}

// Unsigned is the Evidence of a subject without any signatures: everything about it is "not
// signed".
type Unsigned struct{}

// Hints implements Evidence: there are none.
func (Unsigned) Hints(string) []string { return nil }

// Statements implements Evidence: there are none.
func (Unsigned) Statements(_, _ string) []Statement { return nil }

// Rejected implements Evidence: there are none.
func (Unsigned) Rejected([]string, string, string) []Rejection { return nil }

// Signed implements Evidence: there is no signature.
func (Unsigned) Signed() bool { return false }

// Faults implements Evidence: all was checked.
func (Unsigned) Faults() []*Fault { return nil }

// Expiry implements Evidence: an absence does not expire.
func (Unsigned) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }

// Root verifies images under one TrustRoot. Its methods are safe for concurrent use.
type Root interface {
	// Subject returns the subject to fetch for an image: with a tag and no digest, the digests that
	// the tag may mean; with a digest, the signatures on it. A format that fetches both at once
	// returns one subject for both.
	Subject(image imageref.Ref) Subject
	// Host returns the host that serves a subject, so that a down host does not stop the fetches
	// from others. For the zero Subject it returns the host that is known before the first image,
	// empty where there is none.
	Host(about Subject) string
	// Probe sends a request of the format's protocol to a host, so that a wrong address or
	// certificate shows before the first image does. The error is a *Fault.
	Probe(ctx context.Context, host string) error
	// Fetch brings the evidence of a subject up to date. held is the result of an earlier Fetch or
	// Recheck of the subject, or nil; where nothing has changed, Fetch returns held itself. It
	// never returns evidence older than held, nor expired evidence. On an error, which is a *Fault,
	// held stays valid, unless the fault Ends it.
	Fetch(ctx context.Context, about Subject, held Evidence) (Evidence, error)
	// Recheck verifies again, without a network, evidence that another Root of the same TrustRoot
	// obtained: after an edit of the spec. Evidence that has expired since it was fetched, by less
	// than the grace of the TrustRoot, passes with its expiry unchanged. The error is a *Fault, and
	// held must then no longer be used.
	Recheck(about Subject, held Evidence) (Evidence, error)
}

// Deriver is a Root that verifies files which are about several subjects.
type Deriver interface {
	// Derive returns the evidence of a subject from what was verified for others, without a
	// network. It returns nil unless that is complete, not expired, and contains a signature.
	Derive(about Subject) Evidence
}

// Lister is a Root that reads image registries, and can list the tags of a repository.
type Lister interface {
	// Tags lists the tags of the repository of a subject in its registry, at most limit of them.
	// more says that there are others. The error is a *Fault, or satisfies errors.Is(err,
	// ErrNotFound).
	Tags(ctx context.Context, about Subject, limit int) (tags []string, more bool, err error)
}

// Keeper is a Root whose evidence can be recorded, and read after a restart or on another replica:
// one record for each repository, whatever its number of subjects.
type Keeper interface {
	// Pack encodes the evidence of one repository, by subject. It returns nil where there is
	// nothing to record: an absence of signatures is not recorded. The error is a *Fault.
	Pack(held map[Subject]Evidence) ([]byte, error)
	// Unpack decodes a record of a repository. It verifies it again, without a network, and trusts
	// nothing in it but signatures and the versions seen. held is the present evidence of the
	// repository. For each subject Unpack returns the newer of the two, held itself where the
	// record adds nothing, and later results never undercut either. It may leave out subjects to
	// which the record adds nothing. The error is a *Fault. An Evidence returned with it proves
	// nothing, and must replace held: it remembers the versions seen, for Fetch. Without one, the
	// record is of no use and held stays. The result may refer to packed, which must not be changed
	// afterwards.
	Unpack(repository Subject, packed []byte, held map[Subject]Evidence) (map[Subject]Evidence, error)
}

// Fault is the error of everything that could not be checked. Reason is one of the fault reasons of
// the Fresh condition in api/v1alpha1; Err says which action failed and what to do about it.
type Fault struct {
	Reason string
	Err    error
	// RetryAt is the earliest time at which the server accepts the next request; zero: it named
	// none.
	RetryAt time.Time
	// Refused says, with ReasonServerError, that the server refused the request: with a status 4xx
	// other than 429.
	Refused bool
	// Ends says that the evidence held before must not be used either.
	Ends bool
}

// NewFault returns a Fault with a formatted error.
func NewFault(reason, format string, args ...any) *Fault {
	return &Fault{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Within returns the fault with a formatted error that adds context; the format must wrap f.
func (f *Fault) Within(format string, args ...any) *Fault {
	within := *f
	within.Err = fmt.Errorf(format, args...)
	return &within
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the error behind the fault.
func (f *Fault) Unwrap() error { return f.Err }

// AsFault returns the Fault in the chain of err. It makes any other error a Fault of the given
// reason, so that an untyped error is never taken for a verdict.
func AsFault(err error, reason string) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return &Fault{Reason: reason, Err: err}
}

// Unavailable reports whether the server could not be queried: there was no connection, no response
// in time, or a status 429 or 5xx. A response that refuses something does not count, nor does one
// that cannot be trusted.
func (f *Fault) Unavailable() bool {
	switch f.Reason {
	case v1alpha1.ReasonUnreachable, v1alpha1.ReasonTimeout:
		return true
	case v1alpha1.ReasonServerError:
		return !f.Refused
	}
	return false
}

// Answer is an Evidence without proof, such as the answer of a registry about a tag. It ages from
// the time at which it was given.
type Answer interface {
	// Given is the time at which it was given.
	Given() time.Time
	// Fresh is the time until which it counts. After that a decision waits for a new answer.
	Fresh() time.Time
	// Usable is the time until which it counts if the server could not be queried for a new answer.
	Usable() time.Time
	// Ends is the time until which it counts for the report of what runs, which sends no request.
	// After that it counts for nothing.
	Ends() time.Time
}

// Timely reports whether an answer counts for a request that arrived at a time: it was fresh then,
// or it was given after that.
func Timely(a Answer, arrived time.Time) bool {
	return arrived.Before(a.Fresh()) || !a.Given().Before(arrived)
}
