// Package imageref parses image references and matches them against patterns.
//
// All spellings of a repository ("nginx", "Docker.IO/nginx", "index.docker.io:443/library/nginx")
// have the same Host and Path, and patterns match by these. Name is the name under which the
// repository is signed; there, different spellings of a host are different names. A reference
// without a registry host refers to docker.io and is marked as Short: a node may read it
// differently. Patterns are normalised by the same rules, so another spelling neither evades a
// pattern nor makes it match more. The package is pure: it never resolves a name, sends a request,
// or reads a clock.
package imageref

import (
	_ "crypto/sha256" // go-digest supports only linked algorithms
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// MaxLength bounds a reference, in bytes: a host name, a path and a tag of maximum length, and a
// digest.
const MaxLength = 1024

const (
	dockerHost     = "docker.io"
	dockerIndex    = "index.docker.io" // Docker's clients read it as docker.io
	dockerOfficial = "library"
	defaultTag     = "latest"
)

// Ref is a normalised image reference. Two references to the same repository have equal Host and
// Path. The zero value refers to nothing.
type Ref struct {
	// Host is the registry, in lower case, with its port unless that is the default 443:
	// "docker.io", "localhost:5000", "[::1]:5000". A host of a single label keeps ":443", because
	// without it the host would be read as a path segment.
	Host string
	// Path is the repository within the registry: "library/nginx".
	Path string
	// Tag is the tag. It is "latest" if the reference has neither a tag nor a digest, and empty if
	// it has only a digest.
	Tag string
	// Digest is "sha256:" and 64 lower-case hexadecimal digits, or empty.
	Digest string
	// Short reports that the reference names no registry host, so that Host defaults to docker.io:
	// "nginx", "acme/app:v1". A node with search registries may use another host. A digest does not
	// change that: it fixes the content, but not the repository that policies match.
	Short bool
	// Written is the repository as the reference spells it, if that differs from Host and Path:
	// "registry.example.com:443/acme/app", "docker.io/nginx". Otherwise, and for a Short reference,
	// it is empty.
	Written string
}

// Repository returns host and path: "docker.io/library/nginx".
func (r Ref) Repository() string { return r.Host + "/" + r.Path }

// Name returns the repository as Docker's clients name it when they sign. They keep capitals and
// the default port of a host. So "registry.example.com:443/acme/app" and
// "registry.example.com/acme/app" are different names, although a runtime pulls both from one
// repository.
func (r Ref) Name() string {
	switch host, _, _ := strings.Cut(r.Written, "/"); host {
	case "", dockerHost, dockerIndex:
		return r.Repository()
	}
	return r.Written
}

// String returns the full reference, by its Name. Parse of it returns r, except for Short and, if
// Name equals Repository, Written.
func (r Ref) String() string { return r.join(r.Name(), r.Digest) }

// Pinned returns the reference with the given digest in place of its own: "host/path:tag@digest",
// without the tag if r has none. The tag stays for readers; a runtime pulls by the digest alone.
// The repository keeps its spelling, because pull secrets and the configuration of nodes use it.
// Only a short name is completed.
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

// Parse reads an image reference as a container runtime does, and normalises it. It refuses digests
// other than sha256, and text that a runtime may not read as a reference to a repository, such as
// an image ID.
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
		// The grammar reads an invalid host as a part of the path, but a runtime still reads it as
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

// isImageID reports whether a runtime may read s as the ID of an image on its node, in full or
// shortened, and not as a repository named "sha256". That would run an image that no policy has
// checked.
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

// ValidDigest reports whether s is "sha256:" and 64 lower-case hexadecimal digits. No other digests
// are accepted.
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
