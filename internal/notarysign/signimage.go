package notarysign

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var tagName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// Image is what a tag is signed for: the digest of a manifest or an index, and its size in bytes.
type Image struct {
	Tag, Digest string
	Size        int64
}

// Sign signs a tag in every delegation of which a key is here, as Docker did. With a role it signs
// in the delegation of this name alone, or in targets. A repository without delegations is signed
// in targets. It returns the names of the roles.
func (r *Repository) Sign(image Image, role string) ([]string, error) {
	meta, err := image.meta()
	if err != nil {
		return nil, err
	}
	roles, err := r.signable(image.Tag, role)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, full := range roles {
		entry := r.edit(full)
		what := meta
		old, ok := entry.Targets[image.Tag]
		if ok && hex.EncodeToString(old.Hashes["sha256"]) == strings.TrimPrefix(image.Digest, "sha256:") {
			what.Custom = old.Custom
		}
		entry.Targets[image.Tag] = what
		r.note("sign %s as %s in %s", image.Tag, image.Digest, full)
		names = append(names, shortName(full))
	}
	return names, nil
}

func (i Image) meta() (fileMeta, error) {
	if !tagName.MatchString(i.Tag) {
		return fileMeta{}, fmt.Errorf("%q is not a tag", i.Tag)
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(i.Digest, "sha256:"))
	if err != nil || !strings.HasPrefix(i.Digest, "sha256:") || len(sum) != 32 {
		return fileMeta{}, fmt.Errorf("%q is not a digest such as sha256:... with 64 hexadecimal digits", i.Digest)
	}
	if i.Size <= 0 {
		return fileMeta{}, errors.New("the size of the manifest is missing")
	}
	return fileMeta{Hashes: map[string][]byte{"sha256": sum}, Length: i.Size}, nil
}

// signable returns the files in which a tag can be signed with the keys that are here.
func (r *Repository) signable(tag, role string) ([]string, error) {
	if role != "" {
		return r.signableRole(tag, role)
	}
	all := r.delegations()
	if len(all) == 0 {
		return []string{RoleTargets}, nil
	}
	var found, missing []string
	for _, d := range all {
		if strings.Count(d.Name, "/") != 1 || !d.allows(tag) {
			continue
		}
		ready, err := r.canSign(d.Name)
		switch {
		case err != nil:
			return nil, err
		case ready:
			found = append(found, d.Name)
		case d.Name != RoleReleases:
			missing = append(missing, shortName(d.Name))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the key store has no key of a signer of %s that may sign %s (signers: %s); "+
			"load one with 'trust key load'", r.name, tag, strings.Join(missing, ", "))
	}
	return found, nil
}

// signableRole returns the file of one role. Publish reports a missing key.
func (r *Repository) signableRole(tag, role string) ([]string, error) {
	if role == RoleTargets {
		return []string{RoleTargets}, nil
	}
	full := RoleTargets + "/" + strings.TrimPrefix(role, RoleTargets+"/")
	d := r.delegation(full)
	if d == nil {
		return nil, fmt.Errorf("%s has no signer %q; it has: %s", r.name, role, strings.Join(r.signerNames(), ", "))
	}
	if !d.allows(tag) {
		return nil, fmt.Errorf("signer %q may not sign %s: its delegation is for tags that begin with %q", role, tag,
			d.Paths)
	}
	return []string{full}, nil
}

// canSign reports whether enough keys of a role are here.
func (r *Repository) canSign(role string) (bool, error) {
	q, err := r.requirementOf(role)
	if err != nil {
		return false, err
	}
	own, err := r.ownKeys(q)
	return err == nil && len(own) >= max(q.Threshold, 1), err
}

func (r *Repository) signerNames() []string {
	names := []string{}
	for _, d := range r.delegations() {
		if d.Name != RoleReleases {
			names = append(names, shortName(d.Name))
		}
	}
	if len(names) == 0 {
		return []string{"none"}
	}
	return names
}
