package imageref

import (
	"errors"
	"fmt"
	"strings"
)

// maxPatternLength is the limit of the API for a pattern, in bytes.
const maxPatternLength = 512

const (
	anyOne  = "*"
	anyMany = "**"
)

// Pattern matches repositories by their normalised name. It is anchored at both ends. Host and path
// are matched separately, so no wildcard matches across the first "/":
//
//   - "*" in a path segment matches any number of characters, including none: "app*" matches
//     "app". As a whole segment it matches exactly one segment.
//   - "**" as a whole segment matches any number of segments, including none:
//     "registry.example.com/acme/**" matches registry.example.com/acme, .../acme/app and
//     .../acme/team/app.
//   - "*" in a host matches characters of one label: "*.example.com" matches
//     registry.example.com, but neither example.com nor a.b.example.com. It never matches a port:
//     "*.example.com" does not match registry.example.com:5000.
//   - "*" as the whole host matches every registry on every port: "*/**" matches every image.
//
// A pattern is normalised like a reference: "nginx*" is "docker.io/library/nginx*". The zero value
// matches nothing.
type Pattern struct {
	host     string
	segments []string
}

// ParsePattern reads a pattern. It refuses a pattern that cannot match any repository. It also
// refuses a tag or a digest: a user could evade a rule for a tag by deploying the digest.
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

// checkPattern returns a helpful error for common mistakes in a pattern. checkParses finds the
// rest.
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

// checkParses checks the pattern against the grammar of references: with a letter for each wildcard
// it must be a valid reference.
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

// String returns the full, normalised pattern. ParsePattern of it returns p.
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
		// The segments after the last "**" do not match here, so it must match one more segment. An
		// earlier "**" needs no second try: the segments after it already match as far left as
		// possible.
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

// matchHost reports whether a pattern matches a host.
func matchHost(pattern, host string) bool {
	if pattern == anyOne || pattern == host {
		return true
	}
	if !strings.Contains(pattern, anyOne) {
		return false
	}
	// In an address in brackets, the text after the first colon is never a number, so it is never
	// equal to the port of a pattern.
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

// matchSegment reports whether a pattern matches a path segment or a label of a host. It matches
// each piece between wildcards at its first occurrence. A later occurrence is never better, so
// there is no backtracking.
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
