package notarysign

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Inspection is what a repository says: all that "docker trust inspect" printed, with versions,
// thresholds and expiry.
type Inspection struct {
	Repository string `json:"repository"`
	// Tags are the signed tags, a row for each digest.
	Tags []SignedTag `json:"tags"`
	// Signers are the delegations other than releases.
	Signers []Role `json:"signers"`
	// Administrative are root, targets, snapshot, timestamp, and the delegation releases.
	Administrative []Role `json:"administrative"`
	// Warnings say what expires soon, and what does not count.
	Warnings []string `json:"warnings,omitempty"`
}

// SignedTag is a tag with a digest, and who signed both.
type SignedTag struct {
	Tag    string `json:"tag"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Signers are the signers' names; targets is the owner of the repository.
	Signers []string `json:"signers"`
	// Released says that Docker's own clients pull it: targets or targets/releases lists it.
	Released bool `json:"released"`
}

// Role is a role with its keys and the state of its file.
type Role struct {
	Name      string   `json:"name"`
	Keys      []string `json:"keys"` // canonical IDs
	Threshold int      `json:"threshold"`
	Paths     []string `json:"paths,omitempty"`
	// Version is 0 for a signer who has signed nothing.
	Version int64     `json:"version,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// Fault says why the file does not count.
	Fault string `json:"fault,omitempty"`
}

// Inspect returns the state of the repository. It warns of what expires within a time. A tag limits
// the rows to it.
func (r *Repository) Inspect(tag string, within time.Duration) Inspection {
	i := Inspection{Repository: r.name, Tags: r.signedTags(tag), Signers: []Role{}}
	for _, d := range r.delegations() {
		role := r.describe(shortName(d.Name), d.signers, r.files[RoleTargets].Delegations.Keys)
		role.Paths, role.Fault = d.Paths, r.rejected[d.Name]
		if entry := r.files[d.Name]; entry != nil {
			role.Version, role.Expires = entry.Version, entry.Expires
		}
		if d.Name == RoleReleases {
			i.Administrative = append(i.Administrative, role)
		} else {
			i.Signers = append(i.Signers, role)
		}
	}
	for _, top := range []struct {
		name string
		header
	}{
		{RoleRoot, r.root.header}, {RoleTargets, r.files[RoleTargets].header},
		{RoleSnapshot, r.snapshotHeader()}, {RoleTimestamp, r.timestamp},
	} {
		role := r.describe(top.name, *r.root.Roles[top.name], r.root.Keys)
		role.Version, role.Expires = top.Version, top.Expires
		if top.name == RoleRoot {
			role.Expires = r.rootExpiry()
		}
		i.Administrative = append(i.Administrative, role)
	}
	for _, role := range slices.Concat(i.Administrative, i.Signers) {
		switch {
		case role.Fault != "":
			i.Warnings = append(i.Warnings, role.Name+": its signatures do not count: "+role.Fault)
		case role.Version == 0 || r.serverRenews(role.Name):
		case !r.at.Before(role.Expires):
			i.Warnings = append(i.Warnings, role.Name+" expired at "+role.Expires.UTC().Format(time.RFC3339)+
				"; renew it with 'trust renew'")
		case role.Expires.Before(r.at.Add(within)):
			i.Warnings = append(i.Warnings, role.Name+" expires at "+role.Expires.UTC().Format(time.RFC3339)+
				"; renew it with 'trust renew'")
		}
	}
	return i
}

// serverRenews reports whether the server renews the file of a role.
func (r *Repository) serverRenews(role string) bool {
	if role == RoleSnapshot {
		ready, err := r.canSign(role)
		return err == nil && !ready
	}
	return role == RoleTimestamp
}

// snapshotHeader returns that of the snapshot. A new repository has none.
func (r *Repository) snapshotHeader() header {
	if r.snapshot == nil {
		return header{}
	}
	return r.snapshot.header
}

func (r *Repository) describe(name string, s signers, keys map[string]metadataKey) Role {
	role := Role{Name: name, Threshold: s.Threshold, Keys: []string{}}
	for _, id := range s.KeyIDs {
		if k, ok := keys[id]; ok {
			public, _, err := k.read()
			if err == nil {
				id = public.ID()
			}
		}
		role.Keys = append(role.Keys, id)
	}
	slices.Sort(role.Keys)
	role.Keys = slices.Compact(role.Keys)
	return role
}

// signedTags returns the tags of all files, sorted by tag and digest. A tag that its delegation may
// not sign does not count.
func (r *Repository) signedTags(only string) []SignedTag {
	type row struct{ tag, digest string }
	rows := map[row]*SignedTag{}
	for role, entry := range r.files {
		d := r.delegation(role)
		for tag, meta := range entry.Targets {
			sum := meta.Hashes["sha256"]
			if only != "" && tag != only || d != nil && !d.allows(tag) || len(sum) == 0 ||
				isDelegation(role) && !r.at.Before(entry.Expires) {
				continue
			}
			at := row{tag, "sha256:" + hex.EncodeToString(sum)}
			if rows[at] == nil {
				rows[at] = &SignedTag{Tag: tag, Digest: at.digest, Size: meta.Length, Signers: []string{}}
			}
			switch role {
			case RoleReleases:
				rows[at].Released = true
				continue
			case RoleTargets:
				rows[at].Released = true
			}
			rows[at].Signers = append(rows[at].Signers, shortName(role))
		}
	}
	tags := []SignedTag{}
	for _, t := range rows {
		slices.Sort(t.Signers)
		tags = append(tags, *t)
	}
	slices.SortFunc(tags, func(a, b SignedTag) int {
		return cmp.Or(strings.Compare(a.Tag, b.Tag), strings.Compare(a.Digest, b.Digest))
	})
	return tags
}
