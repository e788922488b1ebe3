package tufrepo

import "net/url"

// MatchPath is matchPath.
func MatchPath(pattern, path string) bool { return matchPath(pattern, path) }

// EscapedName is the name of a role in URLs.
func EscapedName(role string) string { return url.PathEscape(role) }

// MayMatch is mayMatch.
func (f Family) MayMatch(pattern string) bool { return f.mayMatch(pattern) }
