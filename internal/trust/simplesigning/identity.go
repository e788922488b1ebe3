package simplesigning

import (
	"fmt"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// identity is the rule for the name in a signature (containers-policy.json(5), "signedIdentity").
type identity struct {
	kind v1alpha1.SignedIdentityType
	// reference and repository are those of ExactReference and ExactRepository.
	reference  name
	repository string
	// prefix and signedPrefix are those of RemapIdentity.
	prefix, signedPrefix string
}

// name is a reference as a signature has it.
type name struct {
	repository  string // normalised
	tag, digest string // empty: it has none
}

// parseName reads a reference. ok is false if it is none.
func parseName(s string) (n name, ok bool) {
	ref, err := imageref.Parse(s)
	if err != nil {
		return name{}, false
	}
	n = name{repository: ref.Repository(), tag: ref.Tag, digest: ref.Digest}
	if written, _, _ := strings.Cut(s, "@"); n.tag != "" && !strings.HasSuffix(written, ":"+n.tag) {
		n.tag = "" // imageref has added the default
	}
	return n, true
}

// newIdentity compiles the rule. The error is a *trust.Fault and names the field.
func newIdentity(spec *v1alpha1.SignedIdentity, remapped bool) (*identity, error) {
	const field = "spec.simpleSigning.signedIdentity"
	i := &identity{kind: v1alpha1.SignedIdentityMatchRepoDigestOrExact}
	if spec == nil {
		return i, nil
	}
	if spec.Type != "" {
		i.kind = spec.Type
	}
	invalid := func(format string, args ...any) (*identity, error) {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, field+format, args...)
	}
	switch i.kind {
	case v1alpha1.SignedIdentityMatchRepoDigestOrExact, v1alpha1.SignedIdentityMatchExact,
		v1alpha1.SignedIdentityMatchRepository:
	case v1alpha1.SignedIdentityExactReference:
		n, ok := parseName(spec.Reference)
		if !ok || n.tag == "" && n.digest == "" {
			return invalid(".reference: %q is not a reference with a tag or a digest", shown(spec.Reference))
		}
		i.reference = n
	case v1alpha1.SignedIdentityExactRepository:
		n, ok := parseName(spec.Repository)
		if !ok || n.tag != "" || n.digest != "" {
			return invalid(".repository: %q is not a repository without a tag", shown(spec.Repository))
		}
		i.repository = n.repository
	case v1alpha1.SignedIdentityRemapIdentity:
		if remapped {
			return invalid(".type: RemapIdentity and spec.identityRemap both map names; remove one of them")
		}
		for _, p := range []struct{ field, prefix string }{
			{".prefix", spec.Prefix}, {".signedPrefix", spec.SignedPrefix},
		} {
			const rest = "/a"
			if ref, err := imageref.Parse(p.prefix + rest); err != nil || ref.Repository() != p.prefix+rest {
				return invalid(p.field+": %q is not a registry host, or a host and a path, as names of repositories "+
					"begin", shown(p.prefix))
			}
		}
		i.prefix, i.signedPrefix = spec.Prefix, spec.SignedPrefix
	default:
		return invalid(".type: %q is not known", shown(string(i.kind)))
	}
	return i, nil
}

// scope says for which references to an image a signature is.
type scope struct {
	all bool // for every one
	// tag is the tag that it is for. With an empty tag it is for none.
	tag string
	// digest says that it is for the reference by digest alone.
	digest bool
}

// none reports whether the signature is for no reference to the image.
func (s scope) none() bool { return s == scope{} }

// covers reports whether the signature is for a reference. An empty tag stands for one by digest
// alone.
func (s scope) covers(tag string) bool {
	if tag == "" {
		return s.all || s.digest
	}
	return s.all || s.tag == tag
}

// scope returns for which references to an image a signature is that names reference.
func (i *identity) scope(reference string, about *trust.Subject) scope {
	named, ok := parseName(reference)
	image, ok2 := parseName(about.Repository)
	if !ok || !ok2 {
		return scope{}
	}
	repository := image.repository
	switch i.kind {
	case v1alpha1.SignedIdentityMatchRepository:
		return scope{all: named.repository == repository}
	case v1alpha1.SignedIdentityExactRepository:
		return scope{all: named.repository == i.repository}
	case v1alpha1.SignedIdentityExactReference:
		return scope{all: named == i.reference}
	case v1alpha1.SignedIdentityRemapIdentity:
		repository = i.remap(repository)
	default: // the image's own name is compared
	}
	if named.repository != repository || named.tag == "" && named.digest == "" {
		return scope{}
	}
	s := scope{digest: true}
	if i.kind == v1alpha1.SignedIdentityMatchExact {
		s.digest = named.tag == "" && named.digest == about.Digest
	}
	if named.digest == "" || named.digest == about.Digest {
		s.tag = named.tag
	}
	return s
}

// remap replaces the prefix of a repository, at the end of a path segment.
func (i *identity) remap(repository string) string {
	if rest, ok := strings.CutPrefix(repository, i.prefix); ok && (rest == "" || rest[0] == '/') {
		return i.signedPrefix + rest
	}
	return repository
}

// String returns the rule for a message.
func (i *identity) String() string {
	switch i.kind {
	case v1alpha1.SignedIdentityExactRepository:
		return fmt.Sprintf("%s %s", i.kind, i.repository)
	case v1alpha1.SignedIdentityRemapIdentity:
		return fmt.Sprintf("%s %s to %s", i.kind, i.prefix, i.signedPrefix)
	default:
		return string(i.kind)
	}
}
