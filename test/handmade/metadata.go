// Package handmade makes Notary metadata without a Notary client, for tests with thousands of
// repositories, or with metadata that no real client would sign. All other tests use the real
// server and client.
package handmade

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"
)

// Object is a JSON object.
type Object = map[string]any

// Key is a key pair as signed metadata lists it.
type Key struct {
	// ID is the key ID in metadata, and Canonical the ID of the bare key.
	ID, Canonical string

	private *ecdsa.PrivateKey
	kind    string
	public  []byte
}

// NewKey makes a bare ECDSA key.
func NewKey(tb testing.TB) *Key {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(tb, err)
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	check(tb, err)
	k := &Key{private: private, kind: "ecdsa", public: der}
	k.ID = keyID(k.kind, k.public)
	k.Canonical = k.ID
	return k
}

// Certified returns the same key with a certificate for a name, as root keys and the keys of
// Docker's signers have one.
func (k *Key) Certified(tb testing.TB, name string) *Key {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	check(tb, err)
	c := &Key{
		private: k.private, kind: "ecdsa-x509", public: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Canonical: k.Canonical,
	}
	c.ID = keyID(c.kind, c.public)
	return c
}

func keyID(kind string, public []byte) string {
	sum := sha256.Sum256(
		fmt.Appendf(nil, `{"keytype":%q,"keyval":{"private":null,"public":%q}}`, kind,
			base64.StdEncoding.EncodeToString(public)))
	return hex.EncodeToString(sum[:])
}

// canonical returns canonical JSON. For printable ASCII that is the encoding of maps by
// encoding/json.
func canonical(tb testing.TB, v any) []byte {
	tb.Helper()
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	check(tb, e.Encode(v))
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// Seal signs a file of a kind, for example "Root", with a version.
func (k *Key) Seal(tb testing.TB, kind string, version int, lifetime time.Duration, signed Object) []byte {
	tb.Helper()
	signed["_type"], signed["version"], signed["expires"] = kind, version, time.Now().Add(lifetime).Format(
		time.RFC3339Nano)
	message := canonical(tb, signed)
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	check(tb, err)
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return canonical(tb, Object{
		"signed":     json.RawMessage(message),
		"signatures": []Object{{"keyid": k.ID, "method": "ecdsa", "sig": base64.StdEncoding.EncodeToString(signature)}},
	})
}

// Listed returns a "keys" object of metadata.
func Listed(keys ...*Key) Object {
	all := Object{}
	for _, k := range keys {
		all[k.ID] = Object{
			"keytype": k.kind, "keyval": Object{"private": nil, "public": base64.StdEncoding.EncodeToString(k.public)},
		}
	}
	return all
}

// Only returns a role that one key signs.
func Only(k *Key) Object { return Object{"keyids": []string{k.ID}, "threshold": 1} }

// Signers are the keys of an organisation: one root key, with a certificate for each repository,
// and one key for each role in all repositories.
type Signers struct {
	Root  *Key
	Roles map[string]*Key

	tops map[string]*Key // by repository and top-level role
}

// NewSigners makes the keys of an organisation with these roles.
func NewSigners(tb testing.TB, roles ...string) *Signers {
	tb.Helper()
	s := &Signers{Root: NewKey(tb), Roles: map[string]*Key{}, tops: map[string]*Key{}}
	for _, role := range roles {
		s.Roles[role] = NewKey(tb).Certified(tb, role)
	}
	return s
}

// Repository is the content of a repository, which all roles sign.
type Repository struct {
	// Name is the name of the repository as it is signed.
	Name string
	// Digests are the digests of the manifests, in hexadecimal, by tag.
	Digests map[string]string
	// Extra holds further members of the signed part of a role's file, by role.
	Extra map[string]Object
	// Version is the version of the delegations, the snapshot and the timestamp. 0 means 1.
	Version int
}

const (
	rootLife  = 10 * 365 * 24 * time.Hour
	fileLife  = 3 * 365 * 24 * time.Hour
	stampLife = 14 * 24 * time.Hour
)

// Publish signs a repository as Notary's client does, with all tags signed by every role. It adds
// the files to files, under the paths of a Notary server.
func (s *Signers) Publish(tb testing.TB, r Repository, files map[string][]byte) {
	tb.Helper()
	prefix, version := Prefix(r.Name), max(r.Version, 1)
	meta := Object{}
	put := func(name string, raw []byte) {
		short, long := sha256.Sum256(raw), sha512.Sum512(raw)
		meta[name] = Object{"length": len(raw), "hashes": Object{
			"sha256": base64.StdEncoding.EncodeToString(short[:]), "sha512": base64.StdEncoding.EncodeToString(long[:]),
		}}
		files[prefix+name+".json"] = raw
		files[prefix+name+"."+hex.EncodeToString(short[:])+".json"] = raw
	}
	signed := Object{}
	for tag, digest := range r.Digests {
		sum, err := hex.DecodeString(digest)
		check(tb, err)
		signed[tag] = Object{"length": 1000, "hashes": Object{"sha256": base64.StdEncoding.EncodeToString(sum)}}
	}
	var keys []*Key
	var delegations []Object
	for _, role := range slices.Sorted(maps.Keys(s.Roles)) {
		k := s.Roles[role]
		file := Object{"targets": signed, "delegations": Object{"keys": Object{}, "roles": []Object{}}}
		maps.Copy(file, r.Extra[role])
		put("targets/"+role, k.Seal(tb, "Targets", version, fileLife, file))
		keys = append(keys, k)
		d := Only(k)
		d["name"], d["paths"] = "targets/"+role, []string{""}
		delegations = append(delegations, d)
	}
	targets, snapshot, timestamp := s.top(tb, r.Name, "targets"), s.top(tb, r.Name, "snapshot"), s.top(tb, r.Name,
		"timestamp")
	put("targets",
		targets.Seal(tb, "Targets", 1, fileLife,
			Object{"targets": Object{}, "delegations": Object{"keys": Listed(keys...), "roles": delegations}}))
	root := s.top(tb, r.Name, "root")
	raw := files[prefix+"root.json"] // the root is published only once
	if raw == nil {
		raw = root.Seal(tb, "Root", 1, rootLife, Object{
			"consistent_snapshot": false, "keys": Listed(root, targets, snapshot, timestamp),
			"roles": Object{
				"root": Only(root), "targets": Only(targets), "snapshot": Only(snapshot), "timestamp": Only(timestamp),
			},
		})
	}
	put("root", raw)
	put("snapshot", snapshot.Seal(tb, "Snapshot", version, fileLife, Object{"meta": meta}))
	put("timestamp",
		timestamp.Seal(tb, "Timestamp", version, stampLife, Object{"meta": Object{"snapshot": meta["snapshot"]}}))
}

// top returns the key of a top-level role of a repository.
func (s *Signers) top(tb testing.TB, repository, role string) *Key {
	tb.Helper()
	name := repository + " " + role
	if s.tops[name] == nil {
		s.tops[name] = NewKey(tb)
		if role == "root" {
			s.tops[name] = s.Root.Certified(tb, repository)
		}
	}
	return s.tops[name]
}

// Prefix returns the prefix of the paths of a repository's files.
func Prefix(repository string) string { return "/v2/" + repository + "/_trust/tuf/" }

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
