// Package identity decides which certificates may sign for a role, and counts the signers of a role
// for its threshold.
//
// A certificate of a Sigstore CA has an identity: the issuer that authenticated the signer, and the
// subject that the issuer knows the signer by. A role lists identities, exactly or as regular
// expressions. The package promises that an expression matches only whole texts, and that a
// certificate whose identity two readers could read differently has none. It verifies no
// certificate: the caller has done that.
package identity

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// MaxLength bounds each text of an entry and of an identity, in bytes.
	MaxLength = 2048
	// maxSize bounds the size of a compiled expression.
	maxSize = 1 << 14
	// maxShown bounds what a message shows of such a text, in bytes.
	maxShown = 256
)

// Identity is who a certificate was issued to.
type Identity struct {
	// Issuer authenticated the signer: the URL of an OpenID Connect provider.
	Issuer string
	// Subject is the certificate's subject alternative name: a URI, an email address, or a user
	// name.
	Subject string
}

// Explain says whom a certificate was issued to, in the rest of a sentence about a signature. Its
// length is bounded.
func (i Identity) Explain() string {
	return fmt.Sprintf("its certificate is of issuer %q and subject %q", text.Cut(i.Issuer, maxShown),
		text.Cut(i.Subject, maxShown))
}

// Entry is one listed identity of a role. Of each pair, exactly one is set.
type Entry struct {
	// Issuer and Subject are compared exactly.
	Issuer, Subject string
	// IssuerRegExp and SubjectRegExp are expressions in the syntax of RE2. They match only a whole
	// text.
	IssuerRegExp, SubjectRegExp string
}

// List is the compiled list of a role. It is immutable and safe for concurrent use.
type List struct{ entries []compiled }

type compiled struct{ issuer, subject matcher }

// matcher matches one text, exactly or by an expression.
type matcher struct {
	exact   string
	pattern *regexp.Regexp // nil: exact
}

func (m matcher) matches(s string) bool {
	if m.pattern != nil {
		return m.pattern.MatchString(s)
	}
	return m.exact == s
}

// Compile compiles the list of a role. field is the path of the list in the spec, as
// "spec.sigstore.roles[0].identities", with which each error begins.
func Compile(field string, entries []Entry) (*List, error) {
	l := &List{entries: make([]compiled, 0, len(entries))}
	for i, e := range entries {
		at := fmt.Sprintf("%s[%d]", field, i)
		if first := slices.Index(entries, e); first < i {
			return nil, fmt.Errorf("%s: is the same as %s[%d]: remove one of them", at, field, first)
		}
		issuer, err := compile(at, "issuer", e.Issuer, e.IssuerRegExp)
		if err != nil {
			return nil, err
		}
		subject, err := compile(at, "subject", e.Subject, e.SubjectRegExp)
		if err != nil {
			return nil, err
		}
		l.entries = append(l.entries, compiled{issuer: issuer, subject: subject})
	}
	return l, nil
}

// compile compiles one pair of fields.
func compile(entry, name, exact, pattern string) (matcher, error) {
	switch {
	case exact == "" && pattern == "":
		return matcher{}, fmt.Errorf("%s: set %s or %sRegExp", entry, name, name)
	case exact != "" && pattern != "":
		return matcher{}, fmt.Errorf("%s: set only one of %s and %sRegExp", entry, name, name)
	case pattern != "":
		re, err := anchored(pattern)
		if err != nil {
			return matcher{}, fmt.Errorf("%s.%sRegExp: %w", entry, name, err)
		}
		return matcher{pattern: re}, nil
	}
	if err := checkText(exact); err != nil {
		return matcher{}, fmt.Errorf("%s.%s: %w, so it matches no certificate", entry, name, err)
	}
	return matcher{exact: exact}, nil
}

// anchored compiles an expression so that it matches only whole texts.
func anchored(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > MaxLength {
		return nil, fmt.Errorf("is longer than %d bytes", MaxLength)
	}
	// The expression must be valid by itself: "a)|(b" would otherwise end the group around it. The
	// flags of an expression end with the group, so the anchors are those of the whole text.
	alone, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("is not a valid regular expression: %w", err)
	}
	if size(alone) > maxSize {
		return nil, fmt.Errorf("repeats too much: it stands for more than %d characters", maxSize)
	}
	whole, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		// Only an open quotation takes the end of the group in.
		return nil, errors.New(`is not a valid regular expression: \Q has no \E`)
	}
	if whole.MatchString("") {
		return nil, fmt.Errorf("%q matches the empty text, which no certificate has: for any text write .+",
			text.Cut(pattern, maxShown))
	}
	return whole, nil
}

// size returns how large a compiled expression is, about in instructions. A repetition is compiled
// as often as it may occur, so that a short expression can take a hundred megabytes.
func size(re *syntax.Regexp) int {
	n := 1
	for _, sub := range re.Sub {
		n = min(n+size(sub), maxSize+1)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(max(n, len(re.Rune)), maxSize+1)
}

// Match returns the index of the first entry that matches an identity. An identity without issuer
// or subject matches none.
func (l *List) Match(id Identity) (index int, ok bool) {
	if checkText(id.Issuer) != nil || checkText(id.Subject) != nil {
		return 0, false
	}
	for i, e := range l.entries {
		if e.issuer.matches(id.Issuer) && e.subject.matches(id.Subject) {
			return i, true
		}
	}
	return 0, false
}

// Len returns the number of entries: as many of them can count for a threshold.
func (l *List) Len() int { return len(l.entries) }

// checkText checks an issuer or subject. Messages and expressions are certain only of printable
// text on one line.
func checkText(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > MaxLength:
		return fmt.Errorf("is longer than %d bytes", MaxLength)
	case !utf8.ValidString(s):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("has a character that cannot be printed")
	}
	return nil
}
