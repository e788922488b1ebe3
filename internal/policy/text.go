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

// Bounds of the texts, in bytes. Role names, tags and the errors of servers are untrusted input.
const (
	maxLine      = 1500
	maxImageText = 320
	maxFaultText = 600
	maxName      = 64
	maxListed    = 8
	// maxHelp holds 512 characters of nearly every script.
	maxHelp = 1536
)

// part is the text about one policy, or about several at once, with the policy's help.
type part struct{ text, help string }

// line returns the one line about an image: the image as the workload has it, then as many parts as
// the bound allows. Each help follows its part, and a shared help comes once. Of a part that is too
// long it keeps the help and cuts the text. The bound is maxLine plus the longest help.
func line(image string, parts ...part) string {
	const reserve = len("; and 1000000 more policies")
	limit, helps := maxLine-reserve, map[string]bool{"": true}
	for _, p := range parts {
		limit = max(limit, maxLine-reserve+len(p.help))
	}
	said := "image " + quote(image, maxImageText) + ": "
	for i, p := range parts {
		help := ""
		if !helps[p.help] {
			help = "; " + p.help
		}
		if i > 0 {
			if len(said)+len("; ")+len(p.text)+len(help) > limit {
				return said + fmt.Sprintf("; and %d more policies", len(parts)-i)
			}
			said += "; "
		}
		helps[p.help] = true
		said += text.Cut(p.text, limit-len(said)-len(help)) + help
	}
	return said
}

// join puts clauses one after another, and leaves out the empty ones.
func join(clauses ...string) string {
	return strings.Join(slices.DeleteFunc(clauses, func(s string) bool { return s == "" }), "; ")
}

// list joins the first maxListed items with commas, and counts the others.
func list(items []string) string {
	if more := len(items) - maxListed; more > 0 {
		return strings.Join(items[:maxListed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(items, ", ")
}

// quote returns s, shortened and quoted, on one line.
func quote(s string, limit int) string { return strconv.Quote(text.Cut(s, limit)) }

// roleText returns a role's name for a list: quoted unless a policy could name it.
func roleText(role string) string {
	if role == "" || len(role) > maxName || strings.Trim(role, "abcdefghijklmnopqrstuvwxyz0123456789-_/") != "" {
		return quote(role, maxName)
	}
	return role
}

// clean returns untrusted text, such as a server's error, on one line and shortened.
func clean(s string) string { return cleanTo(s, maxFaultText) }

// cleanTo returns untrusted text on one line and within limit bytes.
func cleanTo(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text.Cut(s, limit))
	return strings.Join(strings.Fields(s), " ")
}

// short returns the start of a digest, enough to tell two apart.
func short(digest string) string {
	if !imageref.ValidDigest(digest) {
		return quote(digest, 24)
	}
	return digest[:len("sha256:")+8] + "..."
}
