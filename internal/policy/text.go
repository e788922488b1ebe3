package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/text"
)

// Bounds of the texts, in bytes. Names of roles and tags, and the errors of servers, come from outside.
const (
	maxLine      = 1500
	maxImageText = 320
	maxFaultText = 600
	maxName      = 64
	maxListed    = 8
)

// line is the one line about an image: the image as the workload has it and the parts, one for each policy, as many as
// the bound allows.
func line(image string, parts ...string) string {
	const reserve = len("; and 1000000 more policies")
	said := "image " + quote(image, maxImageText) + ": "
	for i, part := range parts {
		if i > 0 {
			if len(said)+len("; ")+len(part) > maxLine-reserve {
				return said + fmt.Sprintf("; and %d more policies", len(parts)-i)
			}
			said += "; "
		}
		said += text.Cut(part, maxLine-reserve-len(said))
	}
	return said
}

// join puts clauses one after another, and leaves out the empty ones.
func join(clauses ...string) string {
	return strings.Join(slices.DeleteFunc(clauses, func(s string) bool { return s == "" }), "; ")
}

// list joins items with commas, the first few of them.
func list(items []string) string {
	if more := len(items) - maxListed; more > 0 {
		return strings.Join(items[:maxListed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(items, ", ")
}

// quote returns s, shortened, between quotation marks, on one line whatever it holds.
func quote(s string, limit int) string { return strconv.Quote(text.Cut(s, limit)) }

// roleText is the name of a role in a list: bare where it is such as policies name, else quoted.
func roleText(role string) string {
	if role == "" || len(role) > maxName || strings.Trim(role, "abcdefghijklmnopqrstuvwxyz0123456789-_/") != "" {
		return quote(role, maxName)
	}
	return role
}

// clean returns text from elsewhere, an error of a server say, on one line and shortened.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text.Cut(s, maxFaultText))
	return strings.Join(strings.Fields(s), " ")
}

// short is a digest as texts show it: enough to tell two apart.
func short(digest string) string {
	if !imageref.ValidDigest(digest) {
		return quote(digest, 24)
	}
	return digest[:len("sha256:")+8] + "..."
}
