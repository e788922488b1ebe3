package convert

import (
	"strings"

	"github.com/countersign-dev/countersign/internal/imageref"
)

// scope is what a rule of the source covers, in patterns of ours.
type scope struct {
	patterns []string
	// wider says that the patterns match more images than the source's rule does, because it names
	// a tag or digest, for example. Such a rule is never excepted from another: both hold then.
	wider bool
	// part says that the patterns may match fewer images than the source's, because a host in them
	// matches names of many parts.
	part bool
}

// everything is the pattern that matches every image.
const everything = "*/**"

// maxLabels is how many parts "*." at the beginning of a host stands for.
const maxLabels = 4

// dialect says how the patterns of a source differ.
type dialect struct {
	// single says that "*" does not match "/", and that "**" does.
	single bool
	// open says that the end is open: "docker.io/acme/app" matches docker.io/acme/app2.
	open bool
}

// translate returns the scope of a pattern with wildcards, and false where there is none.
func translate(pattern string, d dialect) (scope, bool) {
	repository, tag := cutTag(pattern)
	var s scope
	switch tag {
	case "", ":*", ":**":
	default:
		s.wider = true
	}
	if tag == "" && d.single && !strings.HasSuffix(repository, "*") {
		s.wider = true // images have a tag or a digest, which no part of the pattern matches
	}
	if tag == "" && d.open && !strings.HasSuffix(repository, "*") {
		repository += "*"
	}
	if strings.Trim(repository, "*") == "" {
		s.patterns = []string{everything}
		return s, true
	}
	segments := strings.Split(repository, "/")
	hosts, path := splitHost(segments, d, &s)
	if len(path) == 0 {
		return s, false
	}
	for _, p := range spread(path, d, &s) {
		for _, host := range hosts {
			candidate := host + "/" + strings.Join(p, "/")
			if _, err := imageref.ParsePattern(candidate); err != nil {
				return s, false
			}
			s.patterns = append(s.patterns, candidate)
		}
	}
	return s, true
}

// cutTag splits a tag or a digest off, with what separates it.
func cutTag(pattern string) (repository, tag string) {
	last := strings.LastIndexByte(pattern, '/') + 1
	if at := strings.IndexAny(pattern[last:], ":@"); at >= 0 {
		return pattern[:last+at], pattern[last+at:]
	}
	return pattern, ""
}

// splitHost returns the hosts that the first segment stands for, and the path.
func splitHost(segments []string, d dialect, s *scope) (hosts, path []string) {
	first := segments[0]
	named := strings.ContainsAny(first, ".:") || first == "localhost"
	switch {
	case strings.Trim(first, "*") == "" && len(segments) > 1:
		if d.open || first == "**" { // it matches the beginning of the path too
			return []string{"*"}, append([]string{"**"}, segments[1:]...)
		}
		return []string{"*"}, segments[1:]
	case d.open && (len(segments) == 1 || !named):
		path := append([]string{"**"}, segments...)
		path[1] = "*" + strings.TrimLeft(first, "*")
		return []string{"*"}, path
	case len(segments) == 1 || !strings.ContainsAny(first, ".:") && first != "localhost":
		return []string{"docker.io"}, segments
	case strings.HasPrefix(first, "*.") && !strings.Contains(first[1:], "*"):
		s.part = true
		return subdomains(first), segments[1:]
	case strings.Contains(first, "*"):
		s.wider = true
		if d.open || strings.Contains(first, "**") { // it matches the beginning of the path too
			return []string{"*"}, append([]string{"**"}, segments[1:]...)
		}
		return []string{"*"}, segments[1:]
	}
	return []string{first}, segments[1:]
}

// subdomains returns the patterns of a host that begins with "*.", for up to maxLabels parts.
func subdomains(host string) []string {
	var all []string
	for n := 1; n <= maxLabels; n++ {
		all = append(all, strings.Repeat("*.", n)+host[2:])
	}
	return all
}

// spread returns the paths that a path with wildcards stands for. A "*" that matches "/" as well is
// "*" within a segment, or "*/**/*" over several. With more than one "*" in a segment, or with too
// many paths, the result is wider.
func spread(path []string, d dialect, s *scope) [][]string {
	all := [][]string{nil}
	for i, segment := range path {
		var ways [][]string
		switch last := i == len(path)-1; {
		case d.single && !strings.Contains(segment, "**"), !strings.Contains(segment, "*"):
			ways = [][]string{{segment}}
		case segment == "**" && i == 0:
			ways = [][]string{{"**"}}
		case strings.Trim(segment, "*") == "":
			ways = [][]string{{"*", "**"}}
		case i == 1 && path[0] == "**" && strings.LastIndexByte(segment, '*') == 0:
			ways = [][]string{{segment}} // the "**" before it has what "*" matches beyond the segment
		case last && strings.HasSuffix(segment, "*") && !strings.Contains(strings.TrimRight(segment, "*"), "*"):
			ways = [][]string{{strings.TrimRight(segment, "*") + "*", "**"}}
		default:
			s.wider = s.wider || wildcards(segment) > 1
			parts := strings.FieldsFunc(segment, func(r rune) bool { return r == '*' })
			whole := strings.Join(strings.Split(strings.ReplaceAll(segment, "**", "*"), "*"), "*")
			ways = [][]string{{whole}, {parts[0] + "*", "**", "*" + parts[len(parts)-1]}}
			if strings.HasPrefix(segment, "*") {
				ways[1][0] = "*"
			}
			if strings.HasSuffix(segment, "*") {
				ways[1][2] = "*"
			}
		}
		var next [][]string
		for _, before := range all {
			for _, way := range ways {
				next = append(next, append(append([]string(nil), before...), way...))
			}
		}
		all = next
		if len(all) > 16 {
			s.wider = true
			return [][]string{{"**"}}
		}
	}
	return all
}

// wildcards returns how many "*" a segment has. Neighbours count as one.
func wildcards(segment string) int {
	n := 0
	for i := range len(segment) {
		if segment[i] == '*' && (i == 0 || segment[i-1] != '*') {
			n++
		}
	}
	return n
}

// translateScope returns the scope of a containers-policy.json(5) scope: a host, a host with a
// path, a repository, an image, or "*." and a domain.
func translateScope(name string) (scope, bool) {
	var s scope
	repository, tag := cutTag(name)
	if tag != "" && strings.Contains(name, "/") {
		s.wider = true
	} else {
		repository = name
	}
	host, path, _ := strings.Cut(repository, "/")
	hosts := []string{host}
	if strings.HasPrefix(host, "*.") && path == "" {
		hosts, s.part = subdomains(host), true
	}
	for _, h := range hosts {
		candidate := h + "/**"
		switch {
		case s.wider:
			candidate = h + "/" + path
		case path != "":
			candidate = h + "/" + path + "/**"
		}
		if _, err := imageref.ParsePattern(candidate); err != nil {
			return s, false
		}
		s.patterns = append(s.patterns, candidate)
	}
	return s, true
}

// overlap reports whether some image may match both patterns. It may say so too often.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(x), len(y)) {
		if x[i] == "**" || y[i] == "**" {
			return true
		}
		if !strings.Contains(x[i], "*") && !strings.Contains(y[i], "*") && x[i] != y[i] {
			return false
		}
		if i == 0 && strings.Contains(x[i]+y[i], "*") && !hostsOverlap(x[i], y[i]) {
			return false
		}
	}
	return len(x) == len(y) || strings.Contains(a+b, "**")
}

// hostsOverlap reports whether two hosts, one of them with wildcards, may be the same.
func hostsOverlap(a, b string) bool {
	if a == "*" || b == "*" {
		return true
	}
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if !strings.Contains(x[i]+y[i], "*") && x[i] != y[i] {
			return false
		}
	}
	return true
}
