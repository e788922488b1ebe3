package notarysign

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// New makes a repository that the server does not have. The server signs its snapshots and
// timestamps. The root key is the first of the store that the pins allow, and a new one if there is
// none and nothing is pinned. The caller has seen Open return ErrNoRepository.
func New(ctx context.Context, conn Connection, repository string, pins Pins) (*Repository, error) {
	r := newRepository(conn, repository, pins)
	if err := r.initialise(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Repository) initialise(ctx context.Context) error {
	r.note("make the repository %s", r.name)
	rootID, err := r.chooseKey(RoleRoot, "")
	if err != nil {
		return err
	}
	signer, err := r.unlock(ctx, rootID)
	if err != nil {
		return fmt.Errorf("opening the root key: %w", err)
	}
	root, err := rootCertificate(signer, r.name, r.at)
	if err != nil {
		return err
	}
	r.pins.KeyIDs = append(slices.Clone(r.pins.KeyIDs), root.ID())
	targetsID, err := r.chooseKey(RoleTargets, r.name)
	if err != nil {
		return err
	}
	if signer, err = r.unlock(ctx, targetsID); err != nil {
		return fmt.Errorf("opening the targets key: %w", err)
	}
	targets, err := bareKey(signer.Public)
	if err != nil {
		return err
	}
	r.root = &rootFile{
		header: header{Type: "Root"}, Keys: map[string]metadataKey{}, Roles: map[string]*signers{},
	}
	r.setKeys(RoleRoot, root)
	r.setKeys(RoleTargets, targets)
	for _, role := range []string{RoleSnapshot, RoleTimestamp} {
		k, err := serverKey(ctx, r.conn.Server, r.name, role, false)
		if err != nil {
			return err
		}
		r.setKeys(role, k)
	}
	r.editRoot()
	r.edit(RoleTargets)
	return nil
}

// setKeys makes keys the only ones of a role in the root, and keeps the threshold where they reach
// it.
func (r *Repository) setKeys(role string, keys ...PublicKey) {
	s := &signers{Threshold: 1}
	if old := r.root.Roles[role]; old != nil {
		s.Threshold = max(1, min(old.Threshold, len(keys)))
	}
	for _, k := range keys {
		s.KeyIDs = append(s.KeyIDs, k.metadataID())
		r.root.Keys[k.metadataID()] = k.metadata
	}
	r.root.Roles[role] = s
	used := map[string]bool{}
	for _, other := range r.root.Roles {
		for _, id := range other.KeyIDs {
			used[id] = true
		}
	}
	for id := range r.root.Keys {
		if !used[id] {
			delete(r.root.Keys, id)
		}
	}
}

// chooseKey returns the key of a role in a new repository: the first of the store, or a new one. A
// run that was interrupted may have left the key of this repository.
func (r *Repository) chooseKey(role, repository string) (string, error) {
	found, err := r.conn.Keys.Find(role, repository)
	if err != nil {
		return "", fmt.Errorf("reading the key store: %w", err)
	}
	for _, k := range found {
		if role != RoleRoot || len(r.pins.KeyIDs) == 0 || slices.Contains(r.pins.KeyIDs, k.ID) {
			return k.ID, nil
		}
	}
	if role == RoleRoot && !r.pins.Empty() {
		return "", errors.New("the key store has no root key that is pinned; load it with 'trust key load', " +
			"or leave the pin out to make a new root key")
	}
	s, err := r.create(role, repository)
	if err != nil {
		return "", err
	}
	if role == RoleRoot {
		r.warn("%s is a new root key; copy the key store to a safe place off this machine: without it the "+
			"repository's keys can never be replaced", s.ID)
	}
	return s.ID, nil
}
