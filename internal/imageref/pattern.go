package imageref

import (
	"errors"
	"fmt"
	"strings"
)

// maxPatternLength bounds a pattern, in bytes, as the API does.
const maxPatternLength = 512

const (
	anyOne  = "*"
	anyMany = "**"
)

// Pattern matches repositories by their normalised name. It is anchored at both ends, and host and
// path are matched apart, so that nothing reaches across the first "/":
//
//   - "*" in a path stands for any characters of one segment, also for none beside others: "app*"
//     matches "app". As a whole segment it is exactly one segment.
//   - "**" as a whole segment stands for any number of segments, also for none:
//     "registry.example.com/acme/**" matches registry.example.com/acme, .../acme/app and
//     .../acme/team/app.
//   - "*" in a host stands for characters of one label: "*.example.com" matches
//     registry.example.com and neither example.com nor a.b.example.com. It never covers a port:
//     "*.example.com" does not match registry.example.com:5000.
//   - "*" as the whole host is every registry, whatever its name and port: "*/**" matches every
//     image.
//
// A pattern is normalised as a reference is: "nginx*" is "docker.io/library/nginx*". The zero value
// matches nothing.
type Pattern struct {
	host     string
	segments []string
}

// ParsePattern reads a pattern. A pattern that could match no repository at all is refused, as is
// one that names a tag or a digest: a rule for a tag would be dodged by deploying the digest.
func ParsePattern(s string) (Pattern, error) {
	if err := checkPattern(s); err != nil {
		return Pattern{}, err
	}
	segments := strings.Split(s, "/")
	host := dockerHost
	switch first := segments[0]; {
	case len(segments) == 1:
	case first == anyOne:
		host, segments = anyOne, segments[1:]
	default:
		normalised, err := normaliseFirst(first)
		if err != nil {
			return Pattern{}, err
		}
		if namesHost(first) {
			host, segments = normalised, segments[1:]
		}
	}
	if host == dockerHost && len(segments) == 1 && segments[0] != anyMany {
		segments = []string{dockerOfficial, segments[0]}
	}
	p := Pattern{host: host}
	for _, segment := range segments {
		if n := len(p.segments); segment == anyMany && n > 0 && p.segments[n-1] == anyMany {
			continue // "**/**" is "**"
		}
		p.segments = append(p.segments, segment)
	}
	if err := p.checkParses(); err != nil {
		return Pattern{}, err
	}
	return p, nil
}

// checkPattern says in words what is wrong with the form of a pattern; checkParses finds the rest.
func checkPattern(s string) error {
	switch first, _, several := strings.Cut(s, "/"); {
	case s == "":
		return errors.New("the pattern is empty")
	case len(s) > maxPatternLength:
		return fmt.Errorf("the pattern is longer than %d bytes", maxPatternLength)
	case strings.Contains(s, "@"):
		return errors.New("a pattern matches repositories and cannot name a digest; remove what follows the '@'")
	case strings.Contains(s[strings.IndexByte(s, '/')+1:], ":"):
		return errors.New("a pattern matches repositories and cannot name a tag; remove what follows the last ':'")
	case strings.HasPrefix(s, "/"), strings.HasSuffix(s, "/"), strings.Contains(s, "//"):
		return errors.New("a pattern has no empty segment: remove the leading, trailing or doubled '/'")
	case strings.HasPrefix(s, anyMany):
		return errors.New("'**' cannot stand for the registry host; write the host, or '*' for any host")
	case s == anyOne:
		return errors.New("'*' alone would be docker.io/library/*; write that, or '*/**' for every image")
	case !several && strings.Contains(s, "."):
		return errors.New(
			"a pattern without a '/' is a repository of docker.io, and this looks like a registry host; write " +
				"registry.example.com/** for everything there")
	case several && strings.HasPrefix(first, "*:"):
		return errors.New("'*' as the whole host is every host on every port; remove the port, or write the host")
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment != anyMany && strings.Contains(segment, anyMany) {
			return errors.New(
				"'**' stands for whole path segments: write it between slashes, as in registry.example.com/acme/**")
		}
	}
	return nil
}

// checkParses holds the pattern to the grammar of references: with a letter for each wildcard it
// must be one.
func (p Pattern) checkParses() error {
	host := p.host
	if host == anyOne {
		host = dockerHost
	}
	example := strings.NewReplacer(anyMany, "a", anyOne, "a").Replace(host + "/" + strings.Join(p.segments, "/"))
	if _, err := Parse(example); err != nil {
		return fmt.Errorf("the pattern matches no repository: %w", err)
	}
	return nil
}

// String returns the pattern in full, normalised. It parses back to p.
func (p Pattern) String() string { return p.host + "/" + strings.Join(p.segments, "/") }

// Match reports whether the repository of r matches. Its time is bounded by the product of the two
// lengths, whatever the wildcards.
func (p Pattern) Match(r Ref) bool {
	if p.host == "" || !matchHost(p.host, r.Host) {
		return false
	}
	path, retry := r.Path, ""
	done := path == ""
	segments, after := p.segments, []string(nil)
	for {
		if done && len(segments) == 0 {
			return true
		}
		if len(segments) > 0 && segments[0] == anyMany {
			segments = segments[1:]
			if len(segments) == 0 {
				return true
			}
			after, retry = segments, path
			continue
		}
		if !done && len(segments) > 0 {
			segment, rest, more := strings.Cut(path, "/")
			if matchSegment(segments[0], segment) {
				path, done, segments = rest, !more, segments[1:]
				continue
			}
		}
		// What follows the last "**" did not fit here: let the "**" take one segment more. Earlier
		// ones need no second try, for what follows them has been found as far left as it goes.
		if after == nil {
			return false
		}
		_, rest, more := strings.Cut(retry, "/")
		if !more {
			return false
		}
		path, done, segments, retry = rest, false, after, rest
	}
}

// matchHost matches a host, given apart from any path.
func matchHost(pattern, host string) bool {
	if pattern == anyOne || pattern == host {
		return true
	}
	if !strings.Contains(pattern, anyOne) {
		return false
	}
	// What follows the first colon of an address in brackets is never a number, and so never the
	// port of a pattern.
	pattern, patternPort, _ := strings.Cut(pattern, ":")
	host, hostPort, _ := strings.Cut(host, ":")
	if patternPort != hostPort || strings.Count(pattern, ".") != strings.Count(host, ".") {
		return false
	}
	for more := true; more; {
		var patternLabel, label string
		patternLabel, pattern, _ = strings.Cut(pattern, ".")
		label, host, more = strings.Cut(host, ".")
		if !matchSegment(patternLabel, label) {
			return false
		}
	}
	return true
}

// matchSegment matches one path segment, or one label of a host. Each piece between wildcards is
// taken where it first fits; no later place could do better, so nothing is tried twice.
func matchSegment(pattern, s string) bool {
	piece, pattern, wild := strings.Cut(pattern, anyOne)
	if !wild {
		return s == piece
	}
	s, ok := strings.CutPrefix(s, piece)
	for ok {
		if piece, pattern, wild = strings.Cut(pattern, anyOne); !wild {
			return strings.HasSuffix(s, piece)
		}
		_, s, ok = strings.Cut(s, piece)
	}
	return false
}
