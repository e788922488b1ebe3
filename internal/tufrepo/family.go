package tufrepo

import "strings"

// mayAllow reports whether a delegation may cover a path of a family. It may be wrong only where it
// reports true.
func (d *delegation) mayAllow(family Family) bool {
	for _, prefix := range d.hashPrefixes {
		if prefix != "" {
			return true
		}
	}
	for _, pattern := range d.paths {
		if family.mayMatch(pattern) {
			return true
		}
	}
	return false
}

// mayMatch reports whether a pattern may match a path of a family. It compares the elements: those
// before and after the open one as matchPath does, and of the open one what is known of its ends.
func (f Family) mayMatch(pattern string) bool {
	before, after := strings.Split(f.Prefix, "/"), strings.Split(f.Suffix, "/")
	open := len(before) - 1
	elements := strings.Split(pattern, "/")
	if len(elements) != len(before)+len(after)-1 {
		return false
	}
	for i, element := range elements {
		switch {
		case i < open && !matchElement(element, before[i]):
			return false
		case i > open && !matchElement(element, after[i-open]):
			return false
		}
	}
	literal := func(s string) (first, last string) {
		first, last = s, s
		if i := strings.IndexAny(s, "*?["); i >= 0 {
			first, last = s[:i], s[strings.LastIndexAny(s, "*?]")+1:]
		}
		return first, last
	}
	first, last := literal(elements[open])
	prefix, suffix := before[open], after[0]
	return (strings.HasPrefix(first, prefix) || strings.HasPrefix(prefix, first)) &&
		(strings.HasSuffix(last, suffix) || strings.HasSuffix(suffix, last))
}
