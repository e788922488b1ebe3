package trust

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/countersign-dev/countersign/internal/imageref"
)

// Subject is what one piece of evidence is about. A format sets only the fields that it needs, so
// that one fetch serves all images with the same evidence: where one fetch brings the signatures of
// a whole repository, the repository alone.
type Subject struct {
	// Repository is the name under which the repository is signed.
	Repository string
	// Pulled is the name under which the image is pulled.
	Pulled string
	// Tag and Digest are those of the image.
	Tag, Digest string
	// Tenant is the namespace whose pull secrets read the registry. Empty: the credentials of the
	// trust root do, and the evidence serves all namespaces.
	Tenant string
	// Shared says that all repositories of the trust root have their signatures in the same files,
	// so that one record holds these for all of them.
	Shared bool
}

// InRepository returns the subject of the record: without tag, digest and tenant, and if Shared is
// set, without a repository. All subjects of a repository are in one record.
func (s Subject) InRepository() Subject {
	if s.Shared {
		return Subject{Shared: true}
	}
	return Subject{Repository: s.Repository, Pulled: s.Pulled}
}

// Name returns the name of the repository: as it is signed, or where the format does not set that,
// as it is pulled.
func (s Subject) Name() string {
	switch {
	case s.Repository != "":
		return s.Repository
	case s.Pulled == "" && s.Shared:
		return "all repositories"
	}
	return s.Pulled
}

// Compare orders subjects by record and repository, so that all of either follow each other.
func (s Subject) Compare(other Subject) int {
	if s.Shared != other.Shared {
		if s.Shared {
			return 1
		}
		return -1
	}
	return cmp.Or(strings.Compare(s.Repository, other.Repository), strings.Compare(s.Pulled, other.Pulled),
		strings.Compare(s.Tag, other.Tag), strings.Compare(s.Digest, other.Digest),
		strings.Compare(s.Tenant, other.Tenant))
}

// String returns the subject as an image reference, with its tenant.
func (s Subject) String() string {
	var b strings.Builder
	b.WriteString(s.Name())
	if s.Tag != "" {
		b.WriteString(":" + s.Tag)
	}
	if s.Digest != "" {
		b.WriteString("@" + s.Digest)
	}
	if s.Tenant != "" {
		fmt.Fprintf(&b, " with the pull secrets of namespace %q", s.Tenant)
	}
	return b.String()
}

// Tenanted is a Root that reads image registries. What its own credentials may not read, the pull
// secrets of a namespace may.
type Tenanted interface {
	// Tenant returns the subject that is read with the pull secrets of a namespace in place of a
	// subject without a tenant. ok is false if no pull secrets are in use.
	Tenant(about Subject, namespace string) (instead Subject, ok bool)
}

// Key is a subject under a trust root.
type Key struct {
	Root string
	Subject
}

// InRepository returns the key of the subject's record.
func (k Key) InRepository() Key { return Key{Root: k.Root, Subject: k.Subject.InRepository()} }

// Compare orders keys by trust root and repository.
func (k Key) Compare(other Key) int {
	return cmp.Or(strings.Compare(k.Root, other.Root), k.Subject.Compare(other.Subject))
}

// Remap replaces Prefix by SignedPrefix at the start of a repository; both end in "/".
type Remap struct{ Prefix, SignedPrefix string }

// Remaps are the identity remapping of a trust root. The longest prefix applies.
type Remaps []Remap

// Signed returns the name under which the repository of an image is signed. It matches prefixes
// with the name as written, and where none matches, with the normalised name: a mirror is the same
// mirror with its port.
func (all Remaps) Signed(image imageref.Ref) string {
	name := image.Name()
	if signed, ok := all.apply(name); ok {
		return signed
	}
	if image.Written != "" {
		if signed, ok := all.apply(image.Repository()); ok {
			return signed
		}
	}
	return name
}

func (all Remaps) apply(repository string) (signed string, ok bool) {
	var best Remap
	for _, m := range all {
		if strings.HasPrefix(repository, m.Prefix) && (!ok || len(m.Prefix) > len(best.Prefix)) {
			best, ok = m, true
		}
	}
	return best.SignedPrefix + strings.TrimPrefix(repository, best.Prefix), ok
}
