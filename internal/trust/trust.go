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

	"github.com/countersign-dev/countersign/internal/imageref"
)

// ErrNotFound is what a signing server or registry answers, in words of its own protocol, about
// something that is not there. An answer that merely looks like it, such as a proxy's 404 page, is
// a Fault instead.
var ErrNotFound = errors.New("not found")

// NotFound is an ErrNotFound together with the error code that came with it. The distribution
// protocol and all that is derived from it have one form of errors, and each has codes of its own:
// only the format knows whether the code is one of its protocol.
type NotFound struct {
	// Code is what the server said, empty where it is not known. It is bounded, and unverified.
	Code string
}

func (e *NotFound) Error() string { return fmt.Sprintf("%s: %s", e.Code, ErrNotFound) }

// Is says that it is an ErrNotFound.
func (*NotFound) Is(target error) bool { return target == ErrNotFound }

// Statement is one verified fact: Role has signed Digest.
type Statement struct {
	// Digest is the manifest or index digest that was signed, as "sha256:" and 64 lower-case
	// hexadecimal digits.
	Digest string
	// Tag is the tag that the signature names, empty where the format signs digests whatever the
	// tag.
	Tag string
	// Role is the role, as policies name it, whose threshold of distinct keys was met.
	Role string
	// Keys are the canonical IDs of the distinct keys that were counted, sorted.
	Keys []string
	// NotAfter is when the signatures expire; past it the statement is not true. Zero: never.
	NotAfter time.Time
}

// Evidence is what a trust root has verified about one subject. It is immutable, answers from
// memory, is safe for concurrent use, and of a type that can be compared, a pointer: that is how
// unchanged evidence is known.
type Evidence interface {
	// Hints returns the digests that a tag may mean by the word of somebody who proves nothing: of
	// the registry. A format that signs tags has none: its statements name the digests. It is
	// bounded. The result is shared and must not be changed.
	Hints(tag string) []string
	// Statements returns who has signed a digest: for the tag, where the format signs tags, and
	// else whatever the tag. An empty tag stands for any, and an empty digest for each digest that
	// is known here. They are sorted by digest, role and tag. The caller drops what is past its
	// NotAfter, and must not change the result.
	Statements(tag, digest string) []Statement
	// Rejected says what was signed, or should have been, and proves none of some roles, as far as
	// more is known than that they have not signed. It is for the words of a denial alone, and may
	// take longer than a decision. An empty tag or digest stands for any. The result is bounded.
	Rejected(roles []string, tag, digest string) []Rejection
	// Signed reports whether anybody has signed, whoever that is: what a registry says alone is no
	// signature.
	Signed() bool
	// Faults returns what could not be checked beside what was verified: one layout, or one
	// signature. It is bounded.
	Faults() []*Fault
	// Expiry says until when the evidence as a whole may be used, and which signed file ends it.
	// Past it, the subject can no longer be checked. Zero: never.
	Expiry() (notAfter time.Time, file string)
}

// Sized is an Evidence that knows how much memory it takes up.
type Sized interface {
	// Size returns a bound in bytes. What other evidence shares with it counts for each.
	Size() int64
}

// Dated is an Evidence that knows when each of the files expires that it rests on.
type Dated interface {
	// Files returns them in the order of trust. The result is shared and must not be changed.
	Files() []File
}

// Anchored is an Evidence that knows which anchors of its Root it has met.
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
	// Unattended says that the server signs it anew by itself, and only once it has expired: as
	// long as the server can be asked, that it expires soon is no news.
	Unattended bool
	// Part says that only the statements of some roles end with it, and not the evidence as a
	// whole.
	Part bool
	// Kind is what metrics count the file as. A format has few kinds: "targets", "delegation".
	Kind string
}

// Rejection is something that does not prove a role, and why. It never counts for anything.
type Rejection struct {
	// By is what has signed, or what should have and has not, in the words of the format:
	// "targets/qa.json".
	By string
	// Digest is what By has signed. Empty: the rejection is not about one digest.
	Digest string
	// Void says that nothing counts of what By has signed, so that it is not known what that says
	// of the image. Digest is then empty.
	Void bool
	// Why is the rest of the sentence that begins with By: the reason, and what to do about it.
	Why string
}

// Unsigned is the Evidence of a subject that carries no signatures at all: everything about it is
// "not signed".
type Unsigned struct{}

// Hints implements Evidence: nothing was said.
func (Unsigned) Hints(string) []string { return nil }

// Statements implements Evidence: nothing was said.
func (Unsigned) Statements(_, _ string) []Statement { return nil }

// Rejected implements Evidence: nothing was said.
func (Unsigned) Rejected([]string, string, string) []Rejection { return nil }

// Signed implements Evidence: nobody has.
func (Unsigned) Signed() bool { return false }

// Faults implements Evidence: all was checked.
func (Unsigned) Faults() []*Fault { return nil }

// Expiry implements Evidence: an absence does not expire.
func (Unsigned) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }

// Root verifies images under one TrustRoot. Its methods are safe for concurrent use.
type Root interface {
	// Subject returns what is to be asked about an image. Of an image with a tag and no digest,
	// that is which digests the tag may mean; of one with a digest, who has signed it. A format
	// that learns both from one place returns one subject for both.
	Subject(image imageref.Ref) Subject
	// Host returns the host that is asked about a subject, so that one that is down holds up no
	// other. Of the zero Subject it is the one that can be asked before the first image, empty
	// where there is none.
	Host(about Subject) string
	// Probe asks a host for a sign of life in its protocol, so that a wrong address or certificate
	// shows before the first image does. The error is a *Fault.
	Probe(ctx context.Context, host string) error
	// Fetch brings the evidence about a subject up to date. held is what an earlier Fetch or
	// Recheck returned for the subject, or nil; where nothing has changed since, held itself is
	// returned. A Root never returns evidence older than held, nor any that has expired. On an
	// error, which is a *Fault, held stays true.
	Fetch(ctx context.Context, about Subject, held Evidence) (Evidence, error)
	// Recheck verifies again, without a network, evidence that another Root of the same TrustRoot
	// obtained: after an edit of the spec. What has expired since it was fetched, by less than the
	// grace of the TrustRoot, passes, with its expiry as it is. The error is a *Fault, and held
	// must then no longer be used.
	Recheck(about Subject, held Evidence) (Evidence, error)
}

// Keeper is a Root whose evidence can be written down, and read after a restart or on another
// replica: in one record a repository, whatever the number of subjects.
type Keeper interface {
	// Pack writes down the evidence of one repository, by subject. It is nil where there is nothing
	// to keep: an absence of signatures is not written down. The error is a *Fault.
	Pack(held map[Subject]Evidence) ([]byte, error)
	// Unpack takes in what Pack wrote of a repository. It verifies it again, without a network, and
	// believes nothing of it but what is signed, and which versions were seen. held is what is held
	// already of the repository: the newer of the two is returned of each subject, held itself
	// where packed adds nothing, and neither is undercut from then on. Subjects that packed adds
	// nothing to may be left out. The error is a *Fault. An Evidence that comes with it proves
	// nothing, and must take the place of held: it remembers the versions seen, for Fetch. Without
	// one, packed is of no use and held stays. What is returned may keep packed, which must not be
	// changed any more.
	Unpack(repository Subject, packed []byte, held map[Subject]Evidence) (map[Subject]Evidence, error)
}

// Fault is the error of everything that could not be checked. Reason is one of the fault reasons of
// the Fresh condition in api/v1alpha1; Err says what was being done and what to do about it.
type Fault struct {
	Reason string
	Err    error
	// RetryAt is when the server wants to be asked again, at the earliest; zero: it did not say.
	RetryAt time.Time
}

// NewFault returns a Fault with a formatted error.
func NewFault(reason, format string, args ...any) *Fault {
	return &Fault{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Within returns the fault with a formatted error that says more of what was being done; the format
// must wrap f.
func (f *Fault) Within(format string, args ...any) *Fault {
	return &Fault{Reason: f.Reason, Err: fmt.Errorf(format, args...), RetryAt: f.RetryAt}
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the error behind the fault.
func (f *Fault) Unwrap() error { return f.Err }

// AsFault returns the Fault in the chain of err. An error that is none becomes one with the given
// reason, so that an untyped error is never taken for a verdict.
func AsFault(err error, reason string) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return &Fault{Reason: reason, Err: err}
}
