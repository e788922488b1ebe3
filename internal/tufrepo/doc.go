// Package tufrepo is a client for one repository of The Update Framework (TUF), specification 1.0.
//
// It says which roles have signed a target, and fetches targets. Everything is verified from a
// pinned root down: versions never go back, nothing expired is accepted from the network, and files
// of different publications do not mix. The updaters of TUF libraries find the first delegation
// that has a target. This package finds every delegation that has signed it, with the keys that
// count, so it does the client workflow (section 5) itself. It takes the keys' formats from go-tuf.
//
// Fetching and verifying are apart. A State is immutable and holds verified files only. Refresh and
// Load fetch, and return the next State. Signed reads a State, without a network. Pack and Unpack
// turn a State into bytes and back; Unpack verifies everything again.
//
// An error is a *trust.Fault ("could not check"), or satisfies errors.Is(err, trust.ErrNotFound).
// A delegated role whose file is malformed, expired or not signed by its keys has not signed: that
// is a Rejection, and no error.
//
// Three rules are stricter than the specification, or not in it:
//   - A role name with an empty, "." or ".." path element, a backslash or a control character is
//     refused. No URL is made of it.
//   - The delegations of the top-level targets role own their names. A delegation further down with
//     the same name does not count: otherwise a role that may sign a few paths could speak for
//     another role with keys of its own.
//   - A file with the same version as before and other signed content is refused as a rollback,
//     except for the timestamp, where the one that is held stays.
package tufrepo
