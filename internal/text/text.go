// Package text bounds texts whose parts come from outside: the names of roles and owners,
// references of images, what a server said.
//
// It promises that a bound holds in bytes and that no character is torn apart. It never makes text
// longer, and never cleans it: what was not valid UTF-8 before is not valid afterwards.
package text

import "unicode/utf8"

// dots show that something was left out.
const dots = "..."

// Cut shortens s to at most limit bytes, at the border of a character, and shows by three dots at
// the end that it did. Where limit leaves no room for the dots, they are left out as well. A limit
// that is not positive leaves nothing.
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
