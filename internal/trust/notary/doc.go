// Package notary reads the signed metadata of a Notary v1 server (Docker Content Trust) and says
// which role has signed which digest of a repository.
//
// What it promises: every file is verified from the pinned root down, by thresholds of distinct
// public keys, before anything in it is believed or any further file is asked for; files below the
// timestamp are asked for by their signed hash and read to their signed length; no file replaces
// one of a higher version; what was verified answers from memory, carries its own expiry, and can
// be verified again from its raw bytes under other pins. A repository without signatures is a
// verdict, a repository that could not be verified is a *trust.Fault.
//
// What it never does: trust a key on first use, take one role for another (neither targets nor
// targets/releases stands in for a named role), make a URL of a name that breaks the naming rule,
// or read a clock or a network other than those it was given.
//
// The certificate of a root key binds the repository: its common name must be the repository or a
// prefix of it followed by "*". A bare root key binds none, so it counts for nothing even where it
// is pinned. Nor does the file of a delegation say which delegation, or which repository, it is of:
// the snapshot does. Where the server holds the snapshot key, as it commonly does, a key that signs
// for two delegations or repositories could therefore have the one's file served as the other's by
// a server that is broken into; a key for each keeps them apart.
//
// Versions only rise. Where a stolen key has raised one out of reach, replace the keys of that
// role: no file of the past bears the new ones, so its versions start anew. A repository that was
// deleted and initialised again starts anew only where the root that it had is pinned no more, or
// what is held of it is forgotten.
package notary
