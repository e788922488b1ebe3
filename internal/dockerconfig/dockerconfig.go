// Package dockerconfig reads the credentials of registries in the form in which Docker's clients
// keep them, and Secrets of Kubernetes too.
//
// It decodes entries within bounds. It does not say which entry is for which image: the rules
// differ, so each caller has its own. No error contains anything of the content.
package dockerconfig

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

const (
	// MaxContent bounds the content, in bytes. A namespace may have any number of Secrets.
	MaxContent = 128 << 10
	// MaxValues bounds the JSON values of the content.
	MaxValues = 4096
)

// Entry is the entry of one registry, or of a part of it.
type Entry struct {
	// Name is the name of the entry as it is written. It may be a URL.
	Name string
	// Username and Password are the credentials. Both are empty if the entry has none.
	Username, Password string
	// IdentityToken says that the entry has a token in place of a password. The token is not read.
	IdentityToken bool
	// Unusable says why the credentials cannot be read, as the rest of a sentence that begins with
	// the entry. Empty: they can.
	Unusable string
}

// Read returns the entries of a .dockerconfigjson, sorted by name.
func Read(content []byte) ([]Entry, error) {
	var config struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if err := decode(content, &config); err != nil {
		return nil, err
	}
	return entries(config.Auths), nil
}

// ReadLegacy returns the entries of a .dockercfg, the form before that, sorted by name.
func ReadLegacy(content []byte) ([]Entry, error) {
	var auths map[string]json.RawMessage
	if err := decode(content, &auths); err != nil {
		return nil, err
	}
	return entries(auths), nil
}

func decode(content []byte, into any) error {
	if len(content) > MaxContent {
		return fmt.Errorf("has more than %d bytes", MaxContent)
	}
	if values, ok := jsonscan.Count(content, MaxValues); !ok || values == MaxValues {
		return fmt.Errorf("is no JSON, or has more than %d values", MaxValues)
	}
	if json.Unmarshal(content, into) != nil { // the error may contain a password
		return errors.New("does not list registries as \"docker login\" writes them")
	}
	return nil
}

func entries(auths map[string]json.RawMessage) []Entry {
	all := make([]Entry, 0, len(auths))
	for name, raw := range auths {
		e := readEntry(raw)
		e.Name = name
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// readEntry reads one entry. As with Docker's clients and the kubelet, "auth" takes precedence.
func readEntry(raw json.RawMessage) Entry {
	var d struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
	}
	if json.Unmarshal(raw, &d) != nil {
		return Entry{Unusable: "is no JSON object with credentials"}
	}
	if d.Auth != "" {
		decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(d.Auth), "="))
		name, secret, ok := strings.Cut(string(decoded), ":")
		if err != nil || !ok {
			return Entry{Unusable: `has an "auth" that is not the base64 of user:password`}
		}
		d.Username, d.Password = name, secret
	}
	return Entry{Username: d.Username, Password: d.Password, IdentityToken: d.IdentityToken != ""}
}
