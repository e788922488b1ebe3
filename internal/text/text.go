// Package text shortens texts with parts from outside: names of roles and owners, image references,
// answers of a server.
//
// It bounds the length in bytes and never splits a character. It never makes a text longer, and
// never repairs it: text that is not valid UTF-8 stays invalid.
package text

import "unicode/utf8"

// dots mark a text that was cut.
const dots = "..."

// Cut shortens s to at most limit bytes, at the boundary of a character. A shortened text ends with
// three dots, unless limit is too small for them. A limit of 0 or less returns an empty string.
func Cut(s string, limit int) string {
	if len(s) <= max(limit, 0) {
		return s
	}
	end, mark := limit-len(dots), dots
	if end < 0 {
		end, mark = max(limit, 0), ""
	}
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
