// Package imageref parses image references and matches them against patterns.
//
// It promises one spelling for one repository: whatever a workload writes ("nginx",
// "Docker.IO/nginx", "index.docker.io:443/library/nginx"), Host and Path are the same, and patterns
// match by them. Name is what the repository is signed as, for which spellings of one host are
// different names. A reference without a registry host is read as one of docker.io, and Short tells
// that it was: a node may read it otherwise. A pattern is normalised by the same rules, so that it
// can be neither dodged by another spelling nor made to match more than it says. The package is
// pure: it never resolves a name, asks a registry, or reads a clock.
package imageref

import (
	_ "crypto/sha256" // go-digest knows only the algorithms that are linked
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// MaxLength bounds a reference, in bytes: a host name, a path and a tag of the greatest length, and
// a digest.
const MaxLength = 1024

const (
	dockerHost     = "docker.io"
	dockerIndex    = "index.docker.io" // which Docker's clients take for docker.io
	dockerOfficial = "library"
	defaultTag     = "latest"
)

// Ref is a normalised image reference. Two references to the same repository have equal Host and
// Path. The zero value refers to nothing.
type Ref struct {
	// Host is the registry, in lower case, with its port unless that is the default 443:
	// "docker.io", "localhost:5000", "[::1]:5000". A host of a single label keeps its ":443",
	// without which it would read as a path segment.
	Host string
	// Path is the repository within the registry: "library/nginx".
	Path string
	// Tag is the tag; "latest" where neither a tag nor a digest was given, empty where only a
	// digest was.
	Tag string
	// Digest is "sha256:" and 64 lower-case hexadecimal digits, or empty.
	Digest string
	// Short says that the reference names no registry host, and that Host is docker.io for want of
	// one: "nginx", "acme/app:v1". A node with search registries may take another host. A digest
	// does not change that: it fixes the content, and not the repository that policies look at.
	Short bool
	// Written is the repository in the spelling of the reference, where that is another than Host
	// and Path: "registry.example.com:443/acme/app", "docker.io/nginx". It is empty otherwise, and
	// where the reference is Short.
	Written string
}

// Repository returns host and path: "docker.io/library/nginx".
func (r Ref) Repository() string { return r.Host + "/" + r.Path }

// Name returns the repository as Docker's clients name it when they sign. They keep capitals and
// the default port of a host, so that "registry.example.com:443/acme/app" is another name than
// "registry.example.com/acme/app", although both are pulled from one repository.
func (r Ref) Name() string {
	switch host, _, _ := strings.Cut(r.Written, "/"); host {
	case "", dockerHost, dockerIndex:
		return r.Repository()
	}
	return r.Written
}

// String returns the reference in full, by its Name. It parses back to r, apart from Short and,
// where Name is the same as Repository, Written.
func (r Ref) String() string { return r.join(r.Name(), r.Digest) }

// Pinned returns the reference with the given digest in place of its own: "host/path:tag@digest",
// without the tag where r has none. The tag stays for the reader; a runtime that sees a digest
// pulls by it alone. The repository stays as it is written, since pull secrets and the
// configuration of nodes are by that; only a short name is given in full.
func (r Ref) Pinned(digest string) string {
	if r.Written != "" {
		return r.join(r.Written, digest)
	}
	return r.join(r.Repository(), digest)
}

func (r Ref) join(s, digest string) string {
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if digest != "" {
		s += "@" + digest
	}
	return s
}

// Parse reads an image reference as a container runtime does, and normalises it. It refuses what a
// runtime may read otherwise than as a reference to a repository, such as an image ID, and digests
// other than sha256.
func Parse(s string) (Ref, error) {
	switch {
	case s == "":
		return Ref{}, errors.New("the image reference is empty")
	case len(s) > MaxLength:
		return Ref{}, fmt.Errorf("the image reference is longer than %d bytes", MaxLength)
	case isImageID(s):
		return Ref{}, errors.New(
			"this is an image ID, which names no repository; write registry.example.com/app@ before the digest, with " +
				"your registry and repository")
	}
	name, sum, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if err := checkDigest(sum); err != nil {
			return Ref{}, err
		}
	}
	host, short := dockerHost, true
	first, rest, several := strings.Cut(name, "/")
	if several {
		normalised, err := normaliseFirst(first)
		if err != nil {
			return Ref{}, err
		}
		if namesHost(first) {
			host, short = normalised, false
		}
		if normalised != first {
			name = normalised + "/" + rest
		}
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return Ref{}, fmt.Errorf("%w; expected registry/repository:tag, in lower case", err)
	}
	if reference.Domain(named) != host {
		// The grammar takes what cannot be a host for a path, where a runtime still takes it for
		// the host.
		return Ref{}, fmt.Errorf("%.64q is not the name of a registry host", host)
	}
	r := Ref{Host: host, Path: reference.Path(named), Digest: sum, Short: short}
	if path, _, _ := strings.Cut(rest, ":"); !short && (first != r.Host || path != r.Path) {
		r.Written = first + "/" + path
	}
	if tagged, ok := named.(reference.Tagged); ok {
		r.Tag = tagged.Tag()
	} else if !hasDigest {
		r.Tag = defaultTag
	}
	return r, nil
}

// isImageID reports whether a runtime may take s for the ID of an image that its node already
// holds, in full or shortened, instead of for a repository called "sha256": that would run an image
// nobody asked a policy about.
func isImageID(s string) bool {
	algorithm, _, ok := strings.Cut(s, ":")
	if !ok {
		return false
	}
	switch digest.Algorithm(algorithm) {
	case digest.SHA256, digest.SHA384, digest.SHA512:
		return true
	}
	return false
}

func checkDigest(s string) error {
	algorithm, _, _ := strings.Cut(s, ":")
	if algorithm != string(digest.SHA256) {
		return fmt.Errorf("digest algorithm %.16q is not supported; use the sha256 digest", algorithm)
	}
	if !ValidDigest(s) {
		return errors.New("a sha256 digest is 'sha256:' and 64 lower-case hexadecimal digits")
	}
	return nil
}

// ValidDigest reports whether s is "sha256:" and 64 lower-case hexadecimal digits, the only digests
// that are accepted.
func ValidDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
