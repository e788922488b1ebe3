package notarysign

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/notarykeys"
)

// breakTimeout bounds the check of a publication whose response did not arrive.
const breakTimeout = 15 * time.Second

// Publish signs the changed files and publishes them in one request. New keys are in the key store
// before that; if the server refuses the files, they are removed again. Afterwards it fetches and
// verifies the repository, and compares it with what it sent. It publishes nothing if nothing has
// changed.
func (r *Repository) Publish(ctx context.Context) error {
	if err := r.rotateAtServer(ctx); err != nil {
		return err
	}
	files, err := r.sign(ctx)
	if err != nil || len(files) == 0 {
		return err
	}
	if err := r.storeKeys(ctx); err != nil {
		return err
	}
	err = post(ctx, r.conn.Server, r.name, files)
	switch {
	case err != nil && isRefused(err):
		return r.removeKeys(err)
	case err != nil:
		return r.afterBreak(ctx, files, err)
	}
	return r.confirm(ctx, files)
}

// sign returns the changed files, by role.
func (r *Repository) sign(ctx context.Context) (map[string][]byte, error) {
	files := map[string][]byte{}
	if r.rootChanged {
		required := []requirement{{RoleRoot, *r.root.Roles[RoleRoot], r.root.Keys}}
		if r.oldRoot != nil {
			required = append(required, requirement{"earlier root", *r.oldRoot.Roles[RoleRoot], r.oldRoot.Keys})
		}
		var err error
		if files[RoleRoot], err = r.signFile(ctx, r.root, r.rootRaw, required...); err != nil {
			return nil, err
		}
	}
	for _, role := range slices.Sorted(maps.Keys(r.files)) {
		entry := r.files[role]
		if !entry.changed {
			continue
		}
		required, err := r.requirementOf(role)
		if err != nil {
			return nil, err
		}
		if files[role], err = r.signFile(ctx, entry.targetsFile, entry.raw, required); err != nil {
			return nil, err
		}
	}
	return files, r.signSnapshot(ctx, files)
}

// signSnapshot adds the snapshot to the files if this store has its key. Otherwise the server signs
// it. The snapshot itself may be what changed.
func (r *Repository) signSnapshot(ctx context.Context, files map[string][]byte) error {
	if len(files) == 0 && !r.snapshotChanged {
		return nil
	}
	required, err := r.requirementOf(RoleSnapshot)
	if err != nil {
		return err
	}
	own, err := r.ownKeys(required)
	if err != nil || len(own) == 0 {
		return err
	}
	if r.snapshot == nil {
		r.snapshot = &snapshotFile{header: header{Type: "Snapshot"}, Meta: map[string]fileMeta{}}
	}
	r.snapshot.Version++
	r.snapshot.Expires = r.at.Add(defaultLifetime)
	for role := range r.snapshot.Meta {
		if isDelegation(role) && !r.isListed(role) {
			delete(r.snapshot.Meta, role)
		}
	}
	for role, raw := range files {
		r.snapshot.Meta[role] = metaOf(raw)
	}
	files[RoleSnapshot], err = r.signFile(ctx, r.snapshot, r.snapRaw, required)
	return err
}

// metaOf returns the entry of a file in the snapshot.
func metaOf(raw []byte) fileMeta {
	sum256, sum512 := sha256.Sum256(raw), sha512.Sum512(raw)
	return fileMeta{
		Length: int64(len(raw)), Hashes: map[string][]byte{"sha256": sum256[:], "sha512": sum512[:]},
	}
}

// requirement is what must sign a file: keys of a role, up to its threshold.
type requirement struct {
	role string
	signers
	keys map[string]metadataKey
}

func (r *Repository) requirementOf(role string) (requirement, error) {
	if !isDelegation(role) {
		return requirement{role, *r.root.Roles[role], r.root.Keys}, nil
	}
	d := r.delegation(role)
	if d == nil {
		return requirement{}, fmt.Errorf("the repository has no signer %s", shortName(role))
	}
	return requirement{role, d.signers, r.files[RoleTargets].Delegations.Keys}, nil
}

// ownKeys returns the keys of a requirement whose private keys are here, sorted by their ID in
// metadata.
func (r *Repository) ownKeys(q requirement) ([]PublicKey, error) {
	var own []PublicKey
	for _, id := range slices.Sorted(slices.Values(q.KeyIDs)) {
		k, ok := q.keys[id]
		if !ok {
			continue
		}
		public, _, err := k.read()
		if err != nil {
			continue // this key cannot sign
		}
		has, err := r.has(public.ID())
		if err != nil {
			return nil, err
		}
		if has {
			own = append(own, public)
		}
	}
	return own, nil
}

// has reports whether the private key with a canonical ID is here.
func (r *Repository) has(id string) (bool, error) {
	if r.unlocked[id] != nil || slices.ContainsFunc(r.created, func(s *notarykeys.Signer) bool { return s.ID == id }) {
		return true, nil
	}
	k, err := r.conn.Keys.Get(id)
	switch {
	case errors.Is(err, notarykeys.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the key store: %w", err)
	}
	return true, k.Fault
}

// signFile returns a file with the signatures of all keys that are here.
func (r *Repository) signFile(ctx context.Context, signed any, previous json.RawMessage,
	required ...requirement) ([]byte, error) {
	message, err := encode(signed, previous)
	if err != nil {
		return nil, err
	}
	e := envelope{Signed: json.RawMessage(message)}
	for _, q := range required {
		own, err := r.ownKeys(q)
		if err != nil {
			return nil, err
		}
		if len(own) < max(q.Threshold, 1) {
			return nil, r.missingKeys(q, own)
		}
		for _, k := range own {
			if err := r.addSignature(ctx, &e, k, message); err != nil {
				return nil, fmt.Errorf("signing for %s: %w", q.role, err)
			}
		}
	}
	return json.Marshal(e)
}

// missingKeys returns the error of a file that too few keys of the store can sign.
func (r *Repository) missingKeys(q requirement, own []PublicKey) error {
	var ids []string
	for _, id := range q.KeyIDs {
		if k, ok := q.keys[id]; ok {
			public, _, err := k.read()
			if err == nil && !slices.ContainsFunc(own, func(o PublicKey) bool { return o.ID() == public.ID() }) {
				ids = append(ids, public.ID())
			}
		}
	}
	return &MissingKeyError{Role: q.role, Need: max(q.Threshold, 1), Have: len(own), IDs: ids}
}

// addSignature adds the signature of a key, if the file does not have it.
func (r *Repository) addSignature(ctx context.Context, e *envelope, k PublicKey, message canonicaljson.Value) error {
	if slices.ContainsFunc(e.Signatures, func(s signature) bool { return s.KeyID == k.metadataID() }) {
		return nil
	}
	signer, err := r.unlock(ctx, k.ID())
	if err != nil {
		return err
	}
	sig, err := signer.Sign(message)
	if err != nil {
		return err
	}
	e.Signatures = append(e.Signatures, signature{KeyID: k.metadataID(), Method: signer.Method(), Sig: sig})
	return nil
}

// unlock decrypts a key once.
func (r *Repository) unlock(ctx context.Context, id string) (*notarykeys.Signer, error) {
	if s := r.unlocked[id]; s != nil {
		return s, nil
	}
	for _, s := range r.created {
		if s.ID == id {
			return s, nil
		}
	}
	s, err := r.conn.Keys.Unlock(ctx, id)
	if err != nil {
		return nil, err
	}
	r.unlocked[id] = s
	return s, nil
}

// confirm fetches the repository and compares it with what was sent.
func (r *Repository) confirm(ctx context.Context, files map[string][]byte) error {
	c, err := r.read(ctx)
	if err != nil {
		return fmt.Errorf("the server accepted the publication, but what it serves could not be verified: %w", err)
	}
	for role, raw := range files {
		served := c.Files[role]
		if role == RoleRoot {
			served = c.Roots[len(c.Roots)-1]
		}
		if !bytes.Equal(served, raw) && !isNewer(served, raw) {
			return fmt.Errorf("the server accepted the publication, but serves another %s.json; "+
				"look at its log, and whether a cache is in between", role)
		}
	}
	return nil
}

// isNewer reports whether a verified file has a higher version: somebody else published since.
func isNewer(served, sent []byte) bool {
	var a, b struct{ header }
	if _, err := decode(served, &a); err != nil {
		return false
	}
	if _, err := decode(sent, &b); err != nil {
		return false
	}
	return a.Version > b.Version
}

// afterBreak finds out what became of a publication whose response did not arrive.
func (r *Repository) afterBreak(ctx context.Context, files map[string][]byte, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), breakTimeout) // also after an interrupt
	defer cancel()
	c, err := r.read(ctx)
	if err != nil && !errors.Is(err, ErrNoRepository) {
		return fmt.Errorf("it is unknown whether the server accepted the publication; run it again: %w", cause)
	}
	for role, raw := range files {
		var served []byte
		switch {
		case c == nil:
		case role == RoleRoot:
			served = c.Roots[len(c.Roots)-1]
		default:
			served = c.Files[role]
		}
		if !bytes.Equal(served, raw) {
			return r.removeKeys(fmt.Errorf("nothing was published; run it again: %w", cause))
		}
	}
	return nil
}

// isListed reports whether targets.json or the file of a signer lists a delegation.
func (r *Repository) isListed(role string) bool {
	for _, entry := range r.files {
		if entry.find(role) != nil {
			return true
		}
	}
	return false
}
