package notation

import (
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// anySubject is the identity that every certificate has.
const anySubject = "*"

// subject is the attributes that the subject of a certificate must have.
type subject []attribute

// attribute is one attribute of a distinguished name. Its type is a dotted object identifier.
type attribute struct{ kind, value string }

// knownTypes are the short names of attributes (RFC 4514, section 3, and those that certificates of
// signers have besides). S is what some tools call ST.
func knownTypes() map[string]string {
	return map[string]string{
		"CN": "2.5.4.3", "SN": "2.5.4.4", "SERIALNUMBER": "2.5.4.5", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8",
		"S": "2.5.4.8", "STREET": "2.5.4.9", "O": "2.5.4.10", "OU": "2.5.4.11", "POSTALCODE": "2.5.4.17",
		"UID": "0.9.2342.19200300.100.1.1", "DC": "0.9.2342.19200300.100.1.25", "EMAILADDRESS": "1.2.840.113549.1.9.1",
	}
}

// parseSubject reads attributes as RFC 4514 writes them: "C=US,ST=WA,O=acme,CN=qa".
func parseSubject(text string) (subject, error) {
	var all subject
	for _, part := range split(text) {
		name, value, found := strings.Cut(part, "=")
		if !found {
			return nil, fmt.Errorf("%q is not an attribute such as CN=qa", part)
		}
		kind, err := attributeType(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		value, err = unescape(value)
		if err != nil {
			return nil, fmt.Errorf("the value of %s %w", strings.TrimSpace(name), err)
		}
		for _, other := range all {
			if other.kind == kind {
				return nil, fmt.Errorf("%s is given twice; name it once", strings.TrimSpace(name))
			}
		}
		all = append(all, attribute{kind: kind, value: value})
	}
	return all, nil
}

// split splits a distinguished name at its commas, but not at escaped ones.
func split(text string) []string {
	var parts []string
	from := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ',':
			parts = append(parts, text[from:i])
			from = i + 1
		}
	}
	return append(parts, text[from:])
}

// attributeType returns the object identifier of an attribute's short name, or of its dotted form.
func attributeType(name string) (string, error) {
	if kind, ok := knownTypes()[strings.ToUpper(name)]; ok {
		return kind, nil
	}
	parts := strings.Split(name, ".")
	for _, part := range parts {
		if n, err := strconv.ParseUint(part, 10, 31); err != nil || strconv.FormatUint(n, 10) != part {
			return "", fmt.Errorf("%q is not a known type of attribute; write its object identifier, as in 2.5.4.3=qa",
				name)
		}
	}
	if len(parts) < 2 {
		return "", fmt.Errorf("%q is not a known type of attribute", name)
	}
	return name, nil
}

// unescape returns the value of an attribute (RFC 4514, section 2.4). Spaces around it do not
// count.
func unescape(text string) (string, error) {
	text = strings.TrimLeft(text, " ")
	for strings.HasSuffix(text, " ") && !strings.HasSuffix(text, `\ `) {
		text = text[:len(text)-1]
	}
	switch {
	case text == "":
		return "", errors.New("is empty")
	case text[0] == '#':
		return "", errors.New("is encoded in hexadecimal, which is not supported; write it as text")
	}
	var value strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			if strings.IndexByte("\"+;<>\x00", text[i]) >= 0 {
				return "", fmt.Errorf("has the character %q, which needs a \\ before it", text[i])
			}
			value.WriteByte(text[i])
			continue
		}
		rest := text[i+1:]
		if rest != "" && strings.IndexByte(`\"+,;<>=# `, rest[0]) >= 0 {
			value.WriteByte(rest[0])
			i++
			continue
		}
		if len(rest) < 2 {
			return "", errors.New(`ends with a \`)
		}
		b, err := hex.DecodeString(rest[:2])
		if err != nil {
			return "", errors.New(`has a \ that escapes nothing`)
		}
		value.Write(b)
		i += 2
	}
	return value.String(), nil
}

// within reports whether a name has each of the attributes. An attribute that the name has twice
// does not count, whatever its values: it is unclear which of them the CA has verified.
func (s subject) within(name pkix.Name) bool {
	for _, wanted := range s {
		n, same := 0, false
		for _, has := range name.Names {
			if has.Type.String() != wanted.kind {
				continue
			}
			n++
			value, ok := has.Value.(string)
			same = ok && value == wanted.value
		}
		if n != 1 || !same {
			return false
		}
	}
	return len(s) > 0
}

// shownName returns a name for messages. Its length is bounded.
func shownName(name pkix.Name) string {
	var known pkix.RDNSequence
	for _, a := range name.Names {
		known = append(known, pkix.RelativeDistinguishedNameSET{{Type: a.Type, Value: a.Value}})
	}
	if len(known) > maxShownAttributes {
		known = known[:maxShownAttributes]
	}
	return shown(known.String())
}
