package simplesigning

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// payloadType is critical.type of every simple signing signature.
	payloadType = "atomic container signature"
	// maxValues bounds the JSON values of a payload, which has a dozen.
	maxValues = 4 << 10
	// maxShown bounds what messages show of a text from outside, in bytes.
	maxShown = 100
)

// payload is the document that is signed.
type payload struct {
	digest    string
	reference string
}

// readPayload reads a document (containers-signature(5)). It has exactly the members critical and
// optional; critical, its image and its identity have exactly the members that are defined, each
// once. What optional says is ignored. The error says why it is none, in the rest of a sentence
// that begins with the signature.
func readPayload(data []byte) (p payload, err error) {
	if n, ok := jsonscan.Count(data, maxValues); !ok || n == maxValues {
		return p, errors.New("has a document that is no JSON, or is too large")
	}
	top, err := members("the document", data, "critical", "optional")
	if err != nil {
		return p, err
	}
	if !bytes.HasPrefix(top["optional"], []byte("{")) {
		return p, errors.New("has a document in which optional is no object")
	}
	critical, err := members("critical", top["critical"], "type", "image", "identity")
	if err != nil {
		return p, err
	}
	image, err := members("critical.image", critical["image"], "docker-manifest-digest")
	if err != nil {
		return p, err
	}
	identity, err := members("critical.identity", critical["identity"], "docker-reference")
	if err != nil {
		return p, err
	}
	kind := ""
	if json.Unmarshal(critical["type"], &kind) != nil || kind != payloadType {
		return p, fmt.Errorf("has a document of the type %q, which is no image signature", shown(kind))
	}
	if json.Unmarshal(image["docker-manifest-digest"], &p.digest) != nil || p.digest == "" ||
		json.Unmarshal(identity["docker-reference"], &p.reference) != nil || p.reference == "" {
		return payload{}, errors.New("has a document without a digest or a reference")
	}
	return p, nil
}

// members returns the members of a JSON object, which must have exactly these, each once. Names are
// compared as they are: encoding/json alone would ignore case.
func members(what string, object []byte, names ...string) (map[string]json.RawMessage, error) {
	found := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(object))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, fmt.Errorf("has a document in which %s is no object", what)
	}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return nil, errors.New("has a document that is no JSON")
		}
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("has a document in which %s has the member %q twice", what, shown(name))
		}
		found[name] = value
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("has a document in which %s lacks the member %q", what, name)
		}
	}
	if len(found) != len(names) {
		return nil, fmt.Errorf("has a document in which %s has members that are not defined", what)
	}
	return found, nil
}

// shown returns a text from outside for a message.
func shown(s string) string { return text.Cut(s, maxShown) }
