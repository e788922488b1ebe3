// Package notarysign makes, edits and publishes the repositories of a Notary v1 server (Docker
// Content Trust).
//
// It reads a repository with the manager's own code, package notary, from a pinned root down. It
// never trusts a root on first use. It edits files in memory. Publish sends all changed files in
// one request, which the server accepts or refuses as a whole, and then reads the repository again.
// A change of somebody else in between is an ErrConflict, and nothing of it is lost.
//
// It sees private keys only through the interface Keys, and sends none anywhere. The keys of
// timestamps, and of the snapshots of new repositories, are at the server.
package notarysign
