// Package clients tests simple signing with the real clients: signatures that gpg and skopeo make
// for images in a real registry, on a lookaside server. "make test-clients" runs it.
package clients
