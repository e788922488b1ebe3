// Package attestation decides whether attestations prove a role.
//
// An attestation is an in-toto statement about an image, signed in a DSSE envelope: how the image
// was built, what it contains, what a scan has found. A role that is proven by attestations names
// the type of their predicate, conditions over the statement in CEL, and how old they may be.
//
// The caller has verified the envelopes and who signed them; the package verifies no signature. It
// is pure: the verdict depends only on the statements, their verified times and the digest, so that
// it can be kept. Only the age is compared with a clock, by the methods of the Verdict. It promises
// that the newest attestation of the type decides, and that whatever cannot be read or evaluated
// does not meet the rule. It allocates no more than Cost, within bounds of time.
package attestation
