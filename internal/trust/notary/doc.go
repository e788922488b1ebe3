// Package notary verifies the TUF metadata of a Notary v1 server (Docker Content Trust). It reports
// which role has signed which digest of a repository.
//
// It verifies every file from the pinned root down, by thresholds of distinct public keys. It uses
// no content of a file, and requests no further file, before the file is verified. It requests the
// files below the timestamp by their signed hash and reads them to their signed length. A file
// never replaces one of a higher version. The resulting evidence answers from memory and carries
// its expiry. It can be verified again, from its raw bytes, under other pins. A repository without
// signatures is a verdict. A repository that could not be verified is a *trust.Fault.
//
// It never trusts a key on first use. It never accepts one role for another: neither targets nor
// targets/releases counts for a named role. It never builds a URL from a name that breaks the
// naming rule. It uses only the clock and the Getter that it was given.
//
// The certificate of a root key binds the repository: its common name must be the repository, or a
// prefix of it followed by "*". A bare root key binds no repository, so it never counts, even if it
// is pinned. The file of a delegation does not name its delegation or its repository either; only
// the snapshot does. The server commonly holds the snapshot key. If one key signs for two
// delegations or repositories, an attacker who controls such a server can therefore serve the file
// of one as the file of the other. A separate key for each prevents that.
//
// Versions only rise. If an attacker raised a version with a stolen key (a fast-forward attack),
// replace all keys of that role: no earlier file is signed by the new keys, so its versions start
// again. The versions of a repository that was deleted and initialised again start again only when
// its earlier root is no longer pinned, or when its stored evidence is deleted.
package notary
