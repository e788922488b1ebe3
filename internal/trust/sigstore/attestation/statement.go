package attestation

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

const (
	// PayloadType is the type of an in-toto statement in an envelope.
	PayloadType = "application/vnd.in-toto+json"
	// SignatureType is the type of the predicate by which cosign signs an image. It is a signature,
	// and no attestation.
	SignatureType = "https://sigstore.dev/cosign/sign/v1"

	// MaxSize bounds a statement, in bytes: in base64, as a bundle has it, it is 8 MiB.
	MaxSize = 6 << 20
	// maxValues bounds the JSON values of a statement. The list of an image with 20,000 packages
	// has about 200,000.
	maxValues = 1 << 18
	// maxDepth bounds the nesting of objects and lists.
	maxDepth = 64
	// maxSubjects bounds the subjects of a statement.
	maxSubjects = 1024
)

// The versions of in-toto statements. What is read of them is the same in both.
const (
	statementV01 = "https://in-toto.io/Statement/v0.1"
	statementV1  = "https://in-toto.io/Statement/v1"
)

// costPerValue bounds the memory of a decoded JSON value beside its text, in bytes: an object with
// one member takes two of them.
const costPerValue = 256

// Cost bounds the memory that Judge needs, in bytes: it decodes one statement at a time.
func Cost(all []Verified) int64 {
	cost := int64(0)
	for _, v := range all {
		values, _ := jsonscan.Count(v.Payload, maxValues)
		cost = max(cost, 2*int64(min(len(v.Payload), MaxSize))+costPerValue*int64(values))
	}
	return cost
}

// TypeOf returns the type of the predicate of a statement, without decoding the rest. If the
// statement names the wanted type, among others even, it is that one: no reader may then take it
// for another's. It is empty if the payload is no statement.
func TypeOf(payload []byte, wanted string) string {
	s, found := jsonscan.Scanner{Text: payload}, ""
	s.SkipSpace()
	s.Members(func(key []byte) {
		from := s.Next
		s.Skip()
		if s.Invalid || !isText(key, "predicateType") {
			return
		}
		if name, ok := unquote(s.Text[from:s.Next]); ok && (found == "" || name == wanted) && found != wanted {
			found = name
		}
	})
	return found
}

// isText reports whether a JSON string is a text.
func isText(quoted []byte, text string) bool {
	s, ok := unquote(quoted)
	return ok && s == text
}

// unquote returns the text of a JSON string.
func unquote(quoted []byte) (string, bool) {
	if len(quoted) < 2 || quoted[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(quoted, &s)
	return s, err == nil
}

// statement is a decoded statement.
type statement struct {
	all       map[string]any
	predicate map[string]any
	subjects  []subject
}

// subject is what a statement is about.
type subject struct {
	name   string
	digest string // sha256 in hexadecimal; empty if it has another one
}

// parse decodes a statement with a predicate of a type. The error is the rest of a sentence that
// begins with the attestation.
func parse(payload []byte, predicateType string) (*statement, error) {
	all, err := decode(payload)
	if err != nil {
		return nil, err
	}
	switch all["_type"] {
	case statementV01, statementV1:
	default:
		return nil, errors.New("is no in-toto statement of version 0.1 or 1")
	}
	if all["predicateType"] != predicateType {
		return nil, errors.New("names no type of its predicate")
	}
	s := &statement{all: all}
	switch predicate := all["predicate"].(type) {
	case nil: // as if it was empty, says in-toto
		s.predicate = map[string]any{}
	case map[string]any:
		s.predicate = predicate
	default:
		return nil, errors.New("has a predicate that is no object")
	}
	if s.subjects, err = subjects(all["subject"]); err != nil {
		return nil, err
	}
	return s, nil
}

// subjects returns the digests of the subjects.
func subjects(list any) ([]subject, error) {
	all, ok := list.([]any)
	if !ok || len(all) == 0 {
		return nil, errors.New("has no subject")
	}
	if len(all) > maxSubjects {
		return nil, fmt.Errorf("has more than %d subjects", maxSubjects)
	}
	found := make([]subject, 0, len(all))
	for _, one := range all {
		members, _ := one.(map[string]any)
		digest, ok := members["digest"].(map[string]any)
		if !ok || len(digest) == 0 {
			return nil, errors.New("has a subject without a digest")
		}
		value, ok := digest["sha256"].(string)
		if _, has := digest["sha256"]; has && !ok {
			return nil, errors.New("has a subject with a digest that is no text")
		}
		name, _ := members["name"].(string)
		found = append(found, subject{name: name, digest: value})
	}
	return found, nil
}

// foreign returns why the statement is not about an image, in the rest of a sentence that begins
// with the attestation; empty if it is. A statement about several images speaks for each. named
// reports whether a name is that of the image; nil: names are not compared.
func (s *statement) foreign(digest string, named func(string) bool) string {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	why := "is about other images"
	if !ok || hex == "" {
		return why
	}
	for _, one := range s.subjects {
		switch {
		case one.digest != hex:
		case named == nil || named(one.name):
			return ""
		case one.name == "":
			why = "names no repository, and signedRepository is Match"
		default:
			why = "names the repository " + shown(one.name) + ", and signedRepository is Match"
		}
	}
	return why
}

// decode decodes a JSON object. It is stricter than encoding/json where two readers could differ:
// names are compared exactly and must not occur twice, and text must be UTF-8.
func decode(payload []byte) (map[string]any, error) {
	if len(payload) > MaxSize {
		return nil, fmt.Errorf("is larger than the %d MiB that are read", MaxSize>>20)
	}
	values, ok := jsonscan.Count(payload, maxValues)
	switch {
	case values == maxValues:
		return nil, fmt.Errorf("has more than the %d JSON values that are read", maxValues)
	case !ok:
		return nil, errors.New("is not valid JSON")
	case !utf8.Valid(payload):
		return nil, errors.New("is not valid UTF-8")
	}
	d := decoder{scan: jsonscan.Scanner{Text: payload}}
	d.scan.SkipSpace()
	value := d.value(0)
	if d.err != nil {
		return nil, d.err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("is not a JSON object")
	}
	return object, nil
}
