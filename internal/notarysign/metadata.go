package notarysign

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/canonicaljson"
)

// Roles with a fixed meaning. Any signer may sign the delegation releases. Docker's own clients
// read the tags in it.
const (
	RoleRoot      = "root"
	RoleTargets   = "targets"
	RoleSnapshot  = "snapshot"
	RoleTimestamp = "timestamp"
	RoleReleases  = "targets/releases"
)

// Lifetimes of new files, as the clients of the format choose them.
const (
	year            = 365 * 24 * time.Hour
	rootLifetime    = 10 * year
	defaultLifetime = 3 * year // of targets, delegations and snapshots
)

// header begins the signed part of each file.
type header struct {
	Type    string    `json:"_type"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// metadataKey is a public key in metadata. The private part is always null.
type metadataKey struct {
	Type  string `json:"keytype"`
	Value struct {
		Private *string `json:"private"`
		Public  []byte  `json:"public"`
	} `json:"keyval"`
}

// signers are the keys and the threshold of a role.
type signers struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

type rootFile struct {
	header
	Keys               map[string]metadataKey `json:"keys"`
	Roles              map[string]*signers    `json:"roles"`
	ConsistentSnapshot bool                   `json:"consistent_snapshot"`
}

type targetsFile struct {
	header
	Targets     map[string]fileMeta `json:"targets"`
	Delegations delegations         `json:"delegations"`
}

type delegations struct {
	Keys  map[string]metadataKey `json:"keys"`
	Roles []*delegation          `json:"roles"`
}

type delegation struct {
	signers

	Name  string   `json:"name"`
	Paths []string `json:"paths"`
}

type snapshotFile struct {
	header
	Meta map[string]fileMeta `json:"meta"`
}

// fileMeta is the signed size of a file or an image, with its hashes.
type fileMeta struct {
	Hashes map[string][]byte `json:"hashes"`
	Length int64             `json:"length"`
	Custom json.RawMessage   `json:"custom,omitempty"`
}

// envelope is a file with its signatures.
type envelope struct {
	Signed     json.RawMessage `json:"signed"`
	Signatures []signature     `json:"signatures"`
}

type signature struct {
	KeyID  string `json:"keyid"`
	Method string `json:"method"`
	Sig    []byte `json:"sig"`
}

// decode reads the signed part of a file that package notary has verified.
func decode(raw []byte, signed any) (*envelope, error) {
	var e envelope
	err := json.Unmarshal(raw, &e)
	if err == nil {
		err = json.Unmarshal(e.Signed, signed)
	}
	if err != nil {
		return nil, fmt.Errorf("reading verified metadata: %w", err)
	}
	return &e, nil
}

// encode returns the signed part of a file in canonical form. Members of the previous signed part
// that this package does not know are kept.
func encode(signed any, previous json.RawMessage) (canonicaljson.Value, error) {
	text, err := json.Marshal(signed)
	if err == nil && previous != nil {
		text, err = withUnknownMembers(text, previous)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding metadata: %w", err)
	}
	return canonicaljson.Encode(text)
}

func withUnknownMembers(text []byte, previous json.RawMessage) ([]byte, error) {
	all, known := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal(previous, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &known); err != nil {
		return nil, err
	}
	maps.Copy(all, known)
	return json.Marshal(all)
}

func newTargets() *targetsFile {
	return &targetsFile{
		header: header{Type: "Targets"}, Targets: map[string]fileMeta{},
		Delegations: delegations{Keys: map[string]metadataKey{}, Roles: []*delegation{}},
	}
}

// find returns a delegation of the file, or nil.
func (t *targetsFile) find(name string) *delegation {
	for _, d := range t.Delegations.Roles {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// dropUnusedKeys removes the keys that no delegation lists.
func (t *targetsFile) dropUnusedKeys() {
	used := map[string]bool{}
	for _, d := range t.Delegations.Roles {
		for _, id := range d.KeyIDs {
			used[id] = true
		}
	}
	maps.DeleteFunc(t.Delegations.Keys, func(id string, _ metadataKey) bool { return !used[id] })
}

// allows reports whether the delegation may sign a tag. Paths are prefixes.
func (d *delegation) allows(tag string) bool {
	for _, p := range d.Paths {
		if strings.HasPrefix(tag, p) {
			return true
		}
	}
	return false
}

// shortName returns the name of a signer: that of its delegation without "targets/".
func shortName(role string) string {
	if path.Dir(role) == RoleTargets {
		return path.Base(role)
	}
	return role
}
