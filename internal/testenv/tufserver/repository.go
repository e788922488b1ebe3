package tufserver

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Key signs files.
type Key struct {
	// ID is its key ID, and PEM the public key.
	ID, PEM string

	signer signature.Signer
	public *metadata.Key
}

// NewKey makes an Ed25519 key.
func NewKey() (*Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	k := &Key{PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
	if k.signer, err = signature.LoadSigner(private, crypto.SHA256); err != nil {
		return nil, fmt.Errorf("loading a key: %w", err)
	}
	if k.public, err = metadata.KeyFromPublicKey(public); err != nil {
		return nil, fmt.Errorf("converting a key: %w", err)
	}
	k.ID, err = k.public.ID()
	return k, err
}

// Repository is a TUF repository. Publish writes what the other methods change.
type Repository struct {
	// Root, Timestamp and Snapshot are the top-level files. Targets are targets.json and the files
	// of delegations, by role. Keys sign them, by role.
	Root      *metadata.Metadata[metadata.RootType]
	Timestamp *metadata.Metadata[metadata.TimestampType]
	Snapshot  *metadata.Metadata[metadata.SnapshotType]
	Targets   map[string]*metadata.Metadata[metadata.TargetsType]
	Keys      map[string][]*Key
	// Until is the expiry of new files.
	Until time.Time

	server *Server
	folder string
}

// Create makes a repository in a folder of the server, such as /metadata, and publishes version 1
// of each top-level file. consistent says whether it has consistent snapshots.
func (s *Server) Create(folder string, until time.Time, consistent bool) (*Repository, error) {
	r := &Repository{
		Root: metadata.Root(until), Timestamp: metadata.Timestamp(until), Snapshot: metadata.Snapshot(until),
		Targets: map[string]*metadata.Metadata[metadata.TargetsType]{metadata.TARGETS: metadata.Targets(until)},
		Keys:    map[string][]*Key{}, Until: until, server: s, folder: folder,
	}
	r.Root.Signed.ConsistentSnapshot = consistent
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		if err := r.AddKey(role); err != nil {
			return nil, err
		}
	}
	r.Root.Signed.Version, r.Targets[metadata.TARGETS].Signed.Version = 0, 0
	r.Snapshot.Signed.Version, r.Timestamp.Signed.Version = 0, 0
	return r, r.Publish(metadata.ROOT, metadata.TARGETS)
}

// RootJSON returns a version of root.json.
func (r *Repository) RootJSON(version int) string {
	return string(r.server.Files()[fmt.Sprintf("%s/%d.root.json", r.folder, version)])
}

// AddKey adds a new key to a top-level role.
func (r *Repository) AddKey(role string) error {
	k, err := NewKey()
	if err != nil {
		return err
	}
	r.Keys[role] = append(r.Keys[role], k)
	return r.Root.Signed.AddKey(k.public, role)
}

// Rotate replaces the keys of a top-level role. The old root keys sign the next root too. Publish
// must follow, of the root and of the role.
func (r *Repository) Rotate(role string) error {
	for _, id := range slices.Clone(r.Root.Signed.Roles[role].KeyIDs) {
		if err := r.Root.Signed.RevokeKey(id, role); err != nil {
			return err
		}
	}
	old := r.Keys[role]
	r.Keys[role] = nil
	if err := r.AddKey(role); err != nil {
		return err
	}
	if role == metadata.ROOT {
		r.Keys[role] = append(r.Keys[role], old...)
	}
	return nil
}

// Delegate adds a delegation with new keys, and an empty file of the role. The threshold is the
// number of keys.
func (r *Repository) Delegate(from, name string, keys int, paths ...string) (*metadata.DelegatedRole, error) {
	d := r.delegations(from)
	role := metadata.DelegatedRole{Name: name, Threshold: keys, Paths: paths}
	for range keys {
		k, err := NewKey()
		if err != nil {
			return nil, err
		}
		r.Keys[name] = append(r.Keys[name], k)
		d.Keys[k.ID] = k.public
		role.KeyIDs = append(role.KeyIDs, k.ID)
	}
	if r.Targets[name] == nil {
		r.Targets[name] = metadata.Targets(r.Until)
		r.Targets[name].Signed.Version = 0
	}
	d.Roles = append(d.Roles, role)
	return &d.Roles[len(d.Roles)-1], nil
}

func (r *Repository) delegations(from string) *metadata.Delegations {
	signed := &r.Targets[from].Signed
	if signed.Delegations == nil {
		signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	return signed.Delegations
}

// Split splits a role into hash bins, and returns their names.
func (r *Repository) Split(role, prefix string, bits int) ([]string, error) {
	k, err := NewKey()
	if err != nil {
		return nil, err
	}
	bins := &metadata.SuccinctRoles{KeyIDs: []string{k.ID}, Threshold: 1, BitLength: bits, NamePrefix: prefix}
	r.Targets[role].Signed.Delegations = &metadata.Delegations{
		Keys: map[string]*metadata.Key{k.ID: k.public}, SuccinctRoles: bins,
	}
	names := bins.GetRoles()
	for _, name := range names {
		r.Targets[name] = metadata.Targets(r.Until)
		r.Targets[name].Signed.Version = 0
		r.Keys[name] = []*Key{k}
	}
	return names, nil
}

// SplitAmong replaces the keys of the bins of a role. Each bin is then signed by all of them, and
// one is enough.
func (r *Repository) SplitAmong(role string, keys ...*Key) {
	d := r.Targets[role].Signed.Delegations
	d.SuccinctRoles.KeyIDs = nil
	for _, k := range keys {
		d.Keys[k.ID] = k.public
		d.SuccinctRoles.KeyIDs = append(d.SuccinctRoles.KeyIDs, k.ID)
	}
	for _, name := range d.SuccinctRoles.GetRoles() {
		r.Keys[name] = keys
	}
}

// Bin returns the bin of a role that may list a path.
func (r *Repository) Bin(role, path string) string {
	return r.Targets[role].Signed.Delegations.SuccinctRoles.GetRolesForTarget(path)[0].Name
}

// Sign lists an image in the file of a role. The digest has the prefix sha256:.
func (r *Repository) Sign(role, path, digest string, size int64) error {
	sum, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		return fmt.Errorf("decoding the digest: %w", err)
	}
	target := metadata.TargetFile()
	target.Length, target.Hashes = size, metadata.Hashes{"sha256": sum}
	r.Targets[role].Signed.Targets[path] = target
	return nil
}

// Publish signs and writes new versions of roles, and of snapshot and timestamp.
func (r *Repository) Publish(roles ...string) error {
	for _, role := range roles {
		if role == metadata.ROOT {
			r.Root.Signed.Version++
			if err := write(r, metadata.ROOT, r.Root, r.Root.Signed.Version, true); err != nil {
				return err
			}
			continue
		}
		file := r.Targets[role]
		file.Signed.Version++
		if err := write(r, role, file, file.Signed.Version, r.Root.Signed.ConsistentSnapshot); err != nil {
			return err
		}
		r.Snapshot.Signed.Meta[role+".json"] = metadata.MetaFile(file.Signed.Version)
	}
	r.Snapshot.Signed.Version++
	if err := write(r, metadata.SNAPSHOT, r.Snapshot, r.Snapshot.Signed.Version,
		r.Root.Signed.ConsistentSnapshot); err != nil {
		return err
	}
	r.Timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.Snapshot.Signed.Version)
	r.Timestamp.Signed.Version++
	return write(r, metadata.TIMESTAMP, r.Timestamp, r.Timestamp.Signed.Version, false)
}

// write signs a file and serves it. versioned says that its version is in its name.
func write[T metadata.Roles](r *Repository, role string, file *metadata.Metadata[T], version int64,
	versioned bool) error {
	file.ClearSignatures()
	for _, k := range r.Keys[role] {
		if _, err := file.Sign(k.signer); err != nil {
			return fmt.Errorf("signing %s.json: %w", role, err)
		}
	}
	raw, err := file.ToBytes(false)
	if err != nil {
		return fmt.Errorf("encoding %s.json: %w", role, err)
	}
	name := strings.ReplaceAll(role, "/", "%2F") + ".json"
	if versioned {
		name = fmt.Sprintf("%d.%s", version, name)
	}
	r.server.put(r.folder+"/"+name, raw)
	return nil
}
