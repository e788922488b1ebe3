// Package tuf verifies images by repositories of The Update Framework (TUF), specification 1.0. The
// targets of a repository are tags, and the hash of a target is the digest of a manifest.
//
// The package tufrepo fetches and verifies the metadata. This package says what it proves: which
// delegations speak for a role of a policy, how many distinct keys must have signed, and which
// target path is which tag. It never takes one delegation for another. A delegation speaks for the
// role of its own name only if the top-level targets role delegates to it. Whoever holds another
// delegation can delegate to any name with keys of their own, so such a name counts only where
// spec.tuf.roles lists it.
//
// One TUF repository may have the signatures of all images, or each image repository has its own.
// In both cases the metadata is fetched, held and recorded once for each TUF repository. A subject
// is a tag, for which only the files are loaded that may list its path, or an image repository,
// which stands for digests under any tag.
//
// From the bottom up: paths of targets (layout.go), pinned keys (keys.go), the roles and what
// proves them (roles.go), a TUF repository with its metadata (repository.go), what that says about
// one subject (evidence.go, rejected.go), and the trust.Root (root.go, record.go, format.go).
package tuf
