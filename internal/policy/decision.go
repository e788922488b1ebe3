// Package policy compiles ImagePolicies and decides, for one container image in one namespace,
// whether it may run.
//
// It promises that an image is admitted only where every requirement of every covering policy in
// mode Enforce is met by signatures that a trust root of that same policy verified, for one digest;
// that only a role's own statements prove that role; and that "could not check" is never reported
// as "not signed". Zero values, invalid specs and evidence that makes no sense deny. The package is
// pure: it reads evidence from memory through an interface, takes the time as an argument, and
// never uses a network, a clock or the cluster.
package policy

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Verdict is the result of a decision. The zero value denies.
type Verdict uint8

const (
	// Denied is a verdict about the image: a requirement is not met, or the reference is unusable
	// and a policy may cover it.
	Denied Verdict = iota
	// CouldNotCheck denies because of a fault: the image may be signed. It is never cached.
	CouldNotCheck
	// Admitted says that every requirement of every covering policy in mode Enforce is met, or that
	// none covers. A reference that cannot be parsed is Admitted only where no policy holds in the
	// namespace, in any mode. A short name that is read by ShortNamesDeny is Admitted only where no
	// policy in mode Enforce holds in the namespace.
	Admitted
)

// Uncovered says what happens to an image that no policy covers. The zero value denies.
type Uncovered uint8

const (
	// UncoveredDeny denies it.
	UncoveredDeny Uncovered = iota
	// UncoveredWarn admits it with a warning to the client.
	UncoveredWarn
	// UncoveredAllow admits it silently.
	UncoveredAllow
)

// ShortNames says how a reference without a registry host is read. The zero value trusts no
// reading.
type ShortNames uint8

const (
	// ShortNamesDeny assumes that nodes may pull such a name from another registry than docker.io.
	// It fails every policy that holds in the namespace, whatever its patterns. The mode of each
	// policy decides whether that denies, warns or is recorded.
	ShortNamesDeny ShortNames = iota
	// ShortNamesDockerIO reads it as one of docker.io.
	ShortNamesDockerIO
)

// String returns the value as the flag --short-names has it.
func (n ShortNames) String() string {
	if n == ShortNamesDockerIO {
		return "DockerIO"
	}
	return "Deny"
}

// Request is one container image in one namespace, to be decided on.
type Request struct {
	// Image is the reference as the workload has it.
	Image string
	// Namespace is the name of the namespace. Its pull secrets may read what a trust root's
	// credentials may not. Empty: no namespace's may.
	Namespace string
	// Namespace labels decide which policies cover the image.
	NamespaceLabels labels.Set
	// Now is the time at which expiry is judged.
	Now time.Time
	// Arrived is when the request for the decision arrived. An answer about a tag counts if it was
	// fresh then, or was given later. Zero: Now.
	Arrived time.Time
	// Failed are the fetches for this request that failed, by subject, each with its error. Where
	// the server could not be queried, an older answer about a tag counts in its place.
	Failed map[trust.Key]error
	// Report says that the decision is for a report, for which nothing is fetched: an answer about
	// a tag counts until it ends.
	Report bool
}

// Roots gives access to the evidence of the trust roots, in memory.
type Roots interface {
	// Usable returns nil where the TrustRoot exists and is Ready, and a *trust.Fault that names it
	// where not: a policy that names it then denies its scope.
	Usable(root string) error
	// Subject returns the subject to look up for an image under a usable root: of its digest where
	// it has one, and else of its tag.
	Subject(root string, image imageref.Ref) trust.Subject
	// Tenant returns the key of the same subject as the pull secrets of a namespace read it. ok is
	// false if none are in use under the root.
	Tenant(about trust.Key, namespace string) (instead trust.Key, ok bool)
	// Evidence returns the verified evidence of a subject, and how long past its expiry it may be
	// used: zero, unless the root has a grace and newer evidence could not be fetched. The error is
	// ErrNotLoaded where the subject was never fetched, and otherwise a *trust.Fault. Whether an
	// answer (trust.Answer) is recent enough is left to the caller.
	Evidence(about trust.Key) (evidence trust.Evidence, grace time.Duration, err error)
}

// ErrNotLoaded is what Roots returns for a subject that is yet to be fetched.
var ErrNotLoaded = errors.New("not loaded yet")

// Decision is the answer to a Request. Its zero value denies.
type Decision struct {
	Verdict Verdict
	// Image is the parsed reference; zero where it could not be parsed. It names docker.io where
	// the reference is Short.
	Image imageref.Ref
	// Digest is the one digest that was verified, where policies in mode Enforce required
	// signatures and it was admitted.
	Digest string
	// Pin is the strongest pinDigests of the covering policies in mode Enforce that require
	// signatures, whatever the verdict; empty where there are none.
	Pin v1alpha1.PinDigests
	// Message is the denial, one line; empty where Admitted.
	Message string
	// Warnings are for the client: of policies in mode Warn, of an uncovered image, of one that
	// cannot be parsed, of signatures that have expired and are used on the grace of their trust
	// root, or OlderAnswer. Each is one line, sorted.
	Warnings []string
	// OlderAnswer is the warning that an older answer named the Digest for the tag, because the
	// registry could not be queried; empty where none did.
	OlderAnswer string
	// Audits are for the log: what policies in mode Audit would have denied. Each is one line,
	// sorted.
	Audits []string
	// NotLoaded are the subjects to fetch before the decision is final, because they were never
	// fetched or the answer about a tag is too old. The verdict may be Admitted
	// all the same, where another trust root proves every role. Sorted, without repetition.
	NotLoaded []trust.Key
	// Consulted are the subjects whose evidence a denial rests on, under trust roots that could
	// prove an unmet role. The caller can refresh them and decide again. A subject that is read
	// with pull secrets follows the one that it stands in for, whose refresh may fail. Sorted,
	// without repetition; empty where Admitted.
	Consulted []trust.Key
	// Outcomes are the outcomes of the covering policies, by name, whatever their mode. It is empty
	// where no policy covers the image, and where the reference cannot be parsed. For a short name
	// under ShortNamesDeny it has every policy that holds in the namespace, each Denied.
	Outcomes []Outcome
}

// Outcome is the result of one policy. Its zero value denies.
type Outcome struct {
	// Policy is the name of the ImagePolicy, and Mode its mode.
	Policy string
	Mode   v1alpha1.PolicyMode
	// Roots are the trust roots that the policy names. They are the policy's own and must not be
	// changed.
	Roots []string
	// Verdict is Admitted where the policy is met: in mode Enforce for the digest that was decided,
	// in the other modes for that or by itself. The mode decides what Denied and CouldNotCheck lead
	// to.
	Verdict Verdict
	// Reason is one of the reasons of decisions in api/v1alpha1.
	Reason string
	// Missing are the roles that have not signed, or in CouldNotCheck are not known to have, as
	// columns write them: "qa", or "2 of 3" for a requirement with anyOf. Empty where Admitted, and
	// where it is not a role that is missing.
	Missing []string
}
