package registry

import (
	"net/http"
	"strings"
)

const maxChallenges = 16

// challenge is an authentication scheme with parameters, from a WWW-Authenticate header (RFC 9110,
// section 11.6.1).
type challenge struct {
	scheme string            // lower case
	params map[string]string // keys in lower case
}

// challenges reads the challenges of a response. A syntax error ends the parsing of its header
// line.
func challenges(h http.Header) []challenge {
	var all []challenge
	for _, line := range h.Values("WWW-Authenticate") {
		p := &challengeParser{text: line}
		for len(all) < maxChallenges {
			c, ok := p.next()
			if !ok {
				break
			}
			all = append(all, c)
		}
	}
	return all
}

type challengeParser struct{ text string }

// next reads a scheme and its parameters, up to the next scheme.
func (p *challengeParser) next() (challenge, bool) {
	p.skip(" \t,")
	scheme := p.token()
	if scheme == "" {
		return challenge{}, false
	}
	c := challenge{scheme: strings.ToLower(scheme), params: make(map[string]string)}
	for {
		p.skip(" \t,")
		before := p.text
		key := p.token()
		p.skip(" \t")
		if key == "" || !strings.HasPrefix(p.text, "=") {
			p.text = before // the next scheme, or nothing
			return c, true
		}
		p.text = p.text[1:]
		p.skip(" \t")
		value, ok := p.value()
		if !ok {
			p.text = ""
			return c, true
		}
		key = strings.ToLower(key)
		if _, twice := c.params[key]; !twice {
			c.params[key] = value
		}
	}
}

// value reads a token or a quoted string.
func (p *challengeParser) value() (string, bool) {
	if !strings.HasPrefix(p.text, `"`) {
		v := p.token()
		return v, v != ""
	}
	var b strings.Builder
	for i := 1; i < len(p.text); i++ {
		switch p.text[i] {
		case '"':
			p.text = p.text[i+1:]
			return b.String(), true
		case '\\':
			if i++; i == len(p.text) {
				return "", false
			}
		}
		b.WriteByte(p.text[i])
	}
	return "", false
}

func (p *challengeParser) skip(chars string) { p.text = strings.TrimLeft(p.text, chars) }

// token reads the longest run of token characters (RFC 9110, section 5.6.2).
func (p *challengeParser) token() string {
	i := 0
	for i < len(p.text) && isTokenByte(p.text[i]) {
		i++
	}
	t := p.text[:i]
	p.text = p.text[i:]
	return t
}

func isTokenByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}
