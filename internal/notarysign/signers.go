package notarysign

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var signerName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,200}$`)

// CheckSigner checks the name of a signer.
func CheckSigner(name string) error {
	switch name {
	case "releases":
		return errors.New("releases is what any signer signs, so it cannot be the name of a signer; choose another")
	case RoleRoot, RoleTargets, RoleSnapshot, RoleTimestamp:
		return fmt.Errorf("%s is a role of the repository itself; choose another name for the signer", name)
	}
	if !signerName.MatchString(name) {
		return fmt.Errorf("%q is not a name for a signer: begin with a lower-case letter or a digit, "+
			"and use these, '-' and '_'", name)
	}
	return nil
}

// AddSigner adds keys to the delegation of a signer, and to targets/releases, which Docker's own
// clients read. It makes the delegations that do not exist. They may sign all tags.
func (r *Repository) AddSigner(name string, keys ...PublicKey) error {
	if err := CheckSigner(name); err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("a signer needs a key")
	}
	for _, role := range []string{RoleTargets + "/" + name, RoleReleases} {
		if !r.addKeys(role, keys) {
			continue
		}
		r.note("let %s sign %s", keyIDs(keys), role)
		if err := r.forget(role, keys); err != nil {
			return err
		}
	}
	if len(r.changes) == 0 {
		r.warn("%s has these keys already; nothing changes", name)
	}
	return nil
}

// forget replaces a file that did not count, such as that of a signer that was removed before, by
// an empty one, if keys of a signer have signed it. Otherwise what they signed then would count
// again. It refuses to add these keys if the empty file cannot be signed here.
func (r *Repository) forget(role string, keys []PublicKey) error {
	entry := r.files[role]
	if entry == nil || entry.raw != nil || entry.Version == 0 || entry.changed {
		return nil
	}
	e, err := decode(r.raw[role], &header{})
	if err != nil {
		return nil //nolint:nilerr // such a file counts for nothing
	}
	if !slices.ContainsFunc(e.Signatures, func(s signature) bool {
		return slices.ContainsFunc(keys, func(k PublicKey) bool { return k.metadataID() == s.KeyID })
	}) {
		return nil
	}
	ready, err := r.canSign(role)
	if err != nil {
		return err
	}
	if !ready {
		return fmt.Errorf("%s was signed before with this key, and what it signed then would count again; "+
			"give the signer a new key, or add it where its private key is", role)
	}
	r.edit(role)
	return nil
}

// AddOwnSigner adds a signer whose key is in the key store, or is made.
func (r *Repository) AddOwnSigner(ctx context.Context, name string) error {
	if err := CheckSigner(name); err != nil {
		return err
	}
	id, err := r.chooseKey(name, "")
	if err != nil {
		return err
	}
	signer, err := r.unlock(ctx, id)
	if err != nil {
		return fmt.Errorf("opening the key of %s: %w", name, err)
	}
	k, err := bareKey(signer.Public)
	if err != nil {
		return err
	}
	return r.AddSigner(name, k)
}

// addKeys adds keys to a delegation and reports whether that changed it.
func (r *Repository) addKeys(role string, keys []PublicKey) bool {
	top := r.files[RoleTargets]
	d := top.find(role)
	var added []PublicKey
	for _, k := range keys {
		if d == nil || !slices.Contains(d.KeyIDs, k.metadataID()) {
			added = append(added, k)
		}
	}
	if len(added) == 0 {
		return false
	}
	r.edit(RoleTargets)
	if d == nil {
		d = &delegation{signers: signers{Threshold: 1}, Name: role, Paths: []string{""}}
		top.Delegations.Roles = append(top.Delegations.Roles, d)
	}
	if top.Delegations.Keys == nil {
		top.Delegations.Keys = map[string]metadataKey{}
	}
	for _, k := range added {
		d.KeyIDs = append(d.KeyIDs, k.metadataID())
		top.Delegations.Keys[k.metadataID()] = k.metadata
	}
	return true
}

// RemoveSigner removes a signer with all its signatures. Its keys are removed from
// targets/releases, unless another signer has the same key.
func (r *Repository) RemoveSigner(name string) error {
	if err := CheckSigner(name); err != nil {
		return err
	}
	role := RoleTargets + "/" + name
	d := r.delegation(role)
	if d == nil {
		return fmt.Errorf("%s has no signer %q; it has: %s", r.name, name, strings.Join(r.signerNames(), ", "))
	}
	top := r.edit(RoleTargets)
	top.Delegations.Roles = slices.DeleteFunc(top.Delegations.Roles, func(o *delegation) bool {
		return o.Name == role || strings.HasPrefix(o.Name, role+"/")
	})
	r.note("remove the signer %s with its %d signatures", name, r.signatures(role))
	if releases := r.delegation(RoleReleases); releases != nil {
		r.removeReleaseKeys(releases, d.KeyIDs)
	}
	top.dropUnusedKeys()
	if entry := r.files[role]; entry != nil { // its signatures must not return with a new signer
		empty := newTargets()
		empty.Version = entry.Version
		r.files[role] = &targetsEntry{targetsFile: empty}
	}
	return nil
}

func (r *Repository) signatures(role string) int {
	if entry := r.files[role]; entry != nil {
		return len(entry.Targets)
	}
	return 0
}

// removeReleaseKeys removes the keys of a removed signer from targets/releases. The last key
// removes the delegation, because one without keys is not valid.
func (r *Repository) removeReleaseKeys(releases *delegation, ids []string) {
	top := r.files[RoleTargets]
	releases.KeyIDs = slices.DeleteFunc(releases.KeyIDs, func(id string) bool {
		return slices.Contains(ids, id) && !slices.ContainsFunc(top.Delegations.Roles, func(o *delegation) bool {
			return o != releases && slices.Contains(o.KeyIDs, id)
		})
	})
	if len(releases.KeyIDs) < max(releases.Threshold, 1) {
		top.Delegations.Roles = slices.DeleteFunc(top.Delegations.Roles,
			func(o *delegation) bool { return o == releases })
		r.warn("no signer is left for targets/releases; Docker's own clients see no tag of %s", r.name)
		return
	}
	if entry := r.files[RoleReleases]; entry != nil && entry.raw != nil && !r.stillSigned(releases) {
		r.warn("only this signer had signed targets/releases; Docker's own clients see no tag of %s until "+
			"another signer signs", r.name)
	}
}

func keyIDs(keys []PublicKey) string {
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.ID())
	}
	return strings.Join(ids, ", ")
}

// stillSigned reports whether a key that is left has signed the delegation's file. The signatures
// were verified.
func (r *Repository) stillSigned(d *delegation) bool {
	e, err := decode(r.raw[d.Name], &header{})
	if err != nil {
		return false
	}
	n := 0
	for _, s := range e.Signatures {
		if slices.Contains(d.KeyIDs, s.KeyID) {
			n++
		}
	}
	return n >= d.Threshold
}
