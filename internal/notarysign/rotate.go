package notarysign

import (
	"context"
	"fmt"
)

// Rotate replaces the key of a role with a new one: root or targets with a key that is stored here,
// snapshot or timestamp with a new key at the server. The earlier root key signs the new root too,
// so that who has pinned it follows.
func (r *Repository) Rotate(role string) error {
	switch role {
	case RoleRoot, RoleTargets:
	case RoleSnapshot, RoleTimestamp:
		// The server makes the key at once. Without the root key it would serve no purpose.
		if ready, err := r.canSign(RoleRoot); err != nil {
			return err
		} else if !ready {
			q, err := r.requirementOf(RoleRoot)
			if err != nil {
				return err
			}
			return r.missingKeys(q, nil)
		}
		r.note("make a new key at the server the only key of %s", role)
		r.editRoot()
		r.atServer = append(r.atServer, role)
		return nil
	default:
		return fmt.Errorf("%q is not one of root, targets, snapshot and timestamp; to replace the key of a signer, "+
			"add the new key with 'trust signer add', and remove the signer or the old key", role)
	}
	threshold := r.root.Roles[role].Threshold
	if threshold > 1 {
		return fmt.Errorf("%s has a threshold of %d; rotate it by hand with all its holders", role, threshold)
	}
	repository := r.name
	if role == RoleRoot {
		repository = ""
	}
	signer, err := r.create(role, repository)
	if err != nil {
		return err
	}
	k, err := bareKey(signer.Public)
	if role == RoleRoot {
		k, err = rootCertificate(signer, r.name, r.at)
		r.warn("%s is a new root key; copy the key store to a safe place off this machine, and pin it: TrustRoots "+
			"that pin the earlier key follow as long as the server has the earlier root", signer.ID)
	}
	if err != nil {
		return err
	}
	r.editRoot()
	r.setKeys(role, k)
	if role == RoleTargets {
		r.edit(RoleTargets)
	}
	r.note("make %s the only key of %s", k.ID(), role)
	return nil
}

// rotateAtServer requests the new keys of the server. Publish calls it. A dry run does not, because
// the server makes the keys at once.
func (r *Repository) rotateAtServer(ctx context.Context) error {
	for _, role := range r.atServer {
		k, err := serverKey(ctx, r.conn.Server, r.name, role, true)
		if err != nil {
			return err
		}
		r.setKeys(role, k)
	}
	r.atServer = nil
	return nil
}
