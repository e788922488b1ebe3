package tuf

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const (
	repositoryVariable = "{repository}"
	tagVariable        = "{tag}"
	defaultTargetPath  = repositoryVariable + ":" + tagVariable
)

// separated matches a template in which a character that no tag has is between {repository} and
// {tag}. Otherwise a path could be of two images: app-x:1 and app:x-1 in {repository}-{tag}.
var separated = regexp.MustCompile(`[}][^{}]*[^A-Za-z0-9_.{}-][^{}]*[{]`)

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// layout is the template of target paths.
type layout string

// newLayout returns the layout of a template. The template has {tag} once, and {repository} once or
// not at all.
func newLayout(template string) (layout, error) {
	if template == "" {
		template = defaultTargetPath
	}
	rest := strings.NewReplacer(repositoryVariable, "", tagVariable, "").Replace(template)
	switch {
	case strings.Count(template, tagVariable) != 1:
		return "", errors.New("it must contain {tag} once")
	case strings.Count(template, repositoryVariable) > 1:
		return "", errors.New("it contains {repository} more than once")
	case strings.ContainsAny(rest, "{}"):
		return "", errors.New("it contains other braces than those of {repository} and {tag}")
	case strings.Contains(template, repositoryVariable) && !separated.MatchString(template):
		return "", errors.New("it must have a ':' or '/' between {repository} and {tag}: otherwise a path could be " +
			"of two images")
	}
	path := layout(template).path("registry.example.com/acme/app", "v1")
	for element := range strings.SplitSeq(path, "/") {
		if element == "" || element == "." || element == ".." {
			return "", fmt.Errorf("%q has an empty path element, or one of dots", path)
		}
	}
	return layout(template), nil
}

// bindsRepository reports whether paths name the image repository.
func (l layout) bindsRepository() bool { return strings.Contains(string(l), repositoryVariable) }

// path returns the target path of a tag.
func (l layout) path(repository, tag string) string {
	return strings.NewReplacer(repositoryVariable, repository, tagVariable, tag).Replace(string(l))
}

// family returns the target paths of all tags of an image repository.
func (l layout) family(repository string) tufrepo.Family {
	before, after, _ := strings.Cut(string(l), tagVariable)
	return tufrepo.Family{
		Prefix: strings.ReplaceAll(before, repositoryVariable, repository),
		Suffix: strings.ReplaceAll(after, repositoryVariable, repository),
	}
}

// tagIn returns the tag of a target path, if the path is one of the family.
func tagIn(of tufrepo.Family, path string) (tag string, ok bool) {
	rest, begins := strings.CutPrefix(path, of.Prefix)
	tag, ends := strings.CutSuffix(rest, of.Suffix)
	return tag, begins && ends && tagPattern.MatchString(tag)
}

// location is where the TUF repositories are: one for all images, or one for each image repository.
type location struct {
	server        string // of the requests
	before, after string // of a repository's name, in the paths of files; escaped
	perRepository bool
}

// newLocation splits the URL of spec.tuf.server.
func newLocation(server string) (location, error) {
	base, after, per := strings.Cut(server, repositoryVariable)
	if !per {
		return location{server: server}, nil
	}
	after = strings.TrimSuffix(after, "/")
	switch {
	case strings.Contains(after, repositoryVariable):
		return location{}, errors.New("it contains {repository} more than once")
	case !strings.HasSuffix(base, "/") || after != "" && after[0] != '/':
		return location{}, errors.New("{repository} must be a whole element of the path")
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return location{}, errors.New("{repository} must be in the path")
	}
	return location{server: strings.TrimRight(base, "/"), before: "/", after: after, perRepository: true}, nil
}

// folder returns the escaped path of the TUF repository that has the signatures of an image
// repository, below the server. It is empty if that is the server itself.
func (l location) folder(repository string) string {
	if !l.perRepository {
		return ""
	}
	elements := strings.Split(repository, "/")
	for i, element := range elements {
		elements[i] = url.PathEscape(element)
	}
	return l.before + strings.Join(elements, "/") + l.after
}
