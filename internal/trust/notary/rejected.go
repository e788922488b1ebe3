package notary

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxRejections bounds the rejections reported for one image, and maxNamed the names in one
	// list of a rejection.
	maxRejections = 8
	maxNamed      = 8
	// maxRejectedTargets bounds the rejected targets of a repository. Denials do not report those
	// beyond it.
	maxRejectedTargets = 1 << 16
)

// rejectedTarget is a signed target that proves no role. It has its own type, so that code cannot
// mistake it for a statement.
type rejectedTarget struct {
	tag    string
	digest [sha256.Size]byte
	cause  *cause
}

// cause is why targets of some files prove no role. role is empty if the files count for no role.
type cause struct {
	role, by, why string
}

// rejectFile records why the file of a delegation does not count.
func (m *metadata) rejectFile(name, why string) {
	if m.rejectedFiles == nil {
		m.rejectedFiles = map[string]string{}
	}
	m.rejectedFiles[name] = why
}

// unsignedReason returns why the signatures on the file of a delegation do not count. err is the
// error of verify.
func (m *metadata) unsignedReason(e *envelope, r role, err error) string {
	if k := m.revokedSigner(e, r); k != nil && len(e.signers(r, func(*publicKey) bool { return true })) >= r.threshold {
		return fmt.Sprintf("is signed by key %s, which is revoked (administrators: spec.revokedKeys of the TrustRoot)",
			k.canonical)
	}
	return err.Error()
}

// rejectedTargets returns the signed targets that prove no role, sorted by tag, role and digest,
// each once. A target of a file without a role is left out if a role signed the same. stated is
// sorted as in statements.
func (m *metadata) rejectedTargets(stated []rawStatement) []rejectedTarget {
	for _, name := range slices.Sorted(maps.Keys(m.verified)) {
		t, c := m.verified[name], m.noRoleCause(name)
		if c == nil {
			continue
		}
		for _, what := range t.targets {
			if t.allows(what.tag) && !isStated(stated, what) {
				m.reject(what, c)
			}
		}
	}
	slices.SortFunc(m.rejected, func(a, b rejectedTarget) int {
		return cmp.Or(a.compareTag(b.tag, b.cause.role), bytes.Compare(a.digest[:], b.digest[:]),
			a.cause.compare(b.cause))
	})
	return slices.CompactFunc(m.rejected, func(a, b rejectedTarget) bool {
		return a.tag == b.tag && a.digest == b.digest && *a.cause == *b.cause
	})
}

// compareTag orders by tag and role.
func (l rejectedTarget) compareTag(tag, role string) int {
	return cmp.Or(strings.Compare(l.tag, tag), strings.Compare(l.cause.role, role))
}

// compareDigest orders by digest and role.
func (l rejectedTarget) compareDigest(digest [sha256.Size]byte, role string) int {
	return cmp.Or(bytes.Compare(l.digest[:], digest[:]), strings.Compare(l.cause.role, role))
}

// compare orders causes of the same role.
func (c *cause) compare(other *cause) int {
	return cmp.Or(strings.Compare(c.by, other.by), strings.Compare(c.why, other.why))
}

// isStated reports whether any role has signed the digest for the tag.
func isStated(stated []rawStatement, what target) bool {
	_, found := slices.BinarySearchFunc(stated, what, func(s rawStatement, what target) int {
		return cmp.Or(strings.Compare(s.tag, what.tag), bytes.Compare(s.digest[:], what.digest[:]))
	})
	return found
}

// noRoleCause returns why a file counts for no role, or nil if it counts for one.
func (m *metadata) noRoleCause(name string) *cause {
	c := &cause{by: name}
	switch {
	case m.hasRole(name):
		return nil
	case name == targetsRole:
		c.why = "which proves no role: sign with a delegation of the role ('docker trust signer add'; " +
			"administrators: or name targets in spec.notary.roles[].delegations of the TrustRoot)"
	case checkMappable(name) != nil:
		c.why = "which proves no role, since any one of all signers signs it: the signer's own delegation must have " +
			"signed ('docker trust signer add')"
	default:
		c.why = "which proves no role: the role of its name is mapped to other delegations (administrators: " +
			"spec.notary.roles of the TrustRoot)"
	}
	return c
}

// thresholdCause returns why some files do not prove their role: too few of the keys that signed
// them count.
func (s mappedRole) thresholdCause(files []*signedTargets, accepted int) *cause {
	names := make([]string, 0, len(files))
	signed := map[string]bool{}
	for _, t := range files {
		names = append(names, t.name)
		for _, key := range t.signers {
			signed[key] = true
		}
	}
	c := &cause{role: s.role, by: joinNames(names)}
	if len(signed) >= s.threshold {
		c.why = fmt.Sprintf(
			"by a key that is not pinned for role %q (administrators: spec.notary.roles[].keys of the TrustRoot)",
			s.role)
	} else {
		c.why = fmt.Sprintf("which is %d of the %d keys that role %q needs", accepted, s.threshold, s.role)
	}
	return c
}

// reject records a signed target that proves no role. It allocates the slice for all targets of the
// files once, up to the bound: a growing slice would exceed the memory that cost counts.
func (m *metadata) reject(what target, why *cause) {
	if m.rejected == nil {
		n := 0
		for name, t := range m.verified {
			n += len(t.targets) * max(1, m.roleCount(name))
		}
		m.rejected = make([]rejectedTarget, 0, min(n, maxRejectedTargets))
	}
	if len(m.rejected) < cap(m.rejected) {
		m.rejected = append(m.rejected, rejectedTarget{tag: what.tag, digest: what.digest, cause: why})
	}
}

// roleCount returns for how many roles a file may count.
func (m *metadata) roleCount(name string) int {
	n := 0
	if _, ok := m.ownRole(name); ok {
		n++
	}
	for _, s := range m.roles {
		if slices.Contains(s.delegations, name) {
			n++
		}
	}
	return n
}

// outsidePathsCause returns the cause for tags outside of the paths of a delegation. outcomes
// caches it.
func (s mappedRole) outsidePathsCause(t *signedTargets, outcomes map[string]roleOutcome) *cause {
	id := "!" + t.name
	v, ok := outcomes[id]
	if !ok {
		v.cause = &cause{
			role: s.role, by: t.name,
			why: "outside of the paths of that delegation ('notary delegation add --all-paths')",
		}
		outcomes[id] = v
	}
	return v.cause
}

// setRejected stores the rejected targets and files, which denials report.
func (e *evidence) setRejected(all []rejectedTarget, files map[string]string, delegations []string) {
	slices.Sort(delegations)
	if 2*len(all) < cap(all) {
		all = slices.Clone(all)
	}
	e.rejected, e.rejectedFiles, e.delegations = all, files, delegations
	e.rejectedByDigest = indexRejected(all)
	const each, index = 16 + sha256.Size + 8, 4
	e.size += int64(cap(e.rejected))*each + int64(cap(e.rejectedByDigest))*index
	for i, l := range e.rejected {
		if i == 0 || all[i-1].tag != l.tag {
			e.size += textSize(l.tag)
		}
	}
	for _, why := range files {
		e.size += keySize + textSize(why)
	}
	e.size += int64(cap(delegations)) * 16
	for _, name := range delegations {
		e.size += textSize(name)
	}
}

// indexRejected returns the indexes of rejected targets, sorted by digest and role. Targets that
// differ only in their tag have one index.
func indexRejected(all []rejectedTarget) []int32 {
	indexes := make([]int32, len(all))
	for i := range all {
		indexes[i] = int32(i)
	}
	slices.SortFunc(indexes, func(i, j int32) int {
		a, b := &all[i], &all[j]
		return cmp.Or(a.compareDigest(b.digest, b.cause.role), a.cause.compare(b.cause), cmp.Compare(i, j))
	})
	indexes = slices.CompactFunc(indexes, func(i, j int32) bool {
		return all[i].digest == all[j].digest && *all[i].cause == *all[j].cause
	})
	if 2*len(indexes) < cap(indexes) {
		indexes = slices.Clone(indexes)
	}
	return indexes
}

// Rejected implements trust.Evidence. Its cost does not grow with the repository: it reads no more
// than it returns.
func (e *evidence) Rejected(roles []string, tag, digest string) []trust.Rejection {
	var found rejections
	for l := range e.rejectedFor(roles, tag, digest) {
		if found.full() {
			break
		}
		found.add(trust.Rejection{By: l.cause.by, Digest: digestText(l.digest), Why: l.cause.why})
	}
	var absent []string
	for _, role := range roles {
		absent = append(absent, e.missingFiles(role, &found)...)
	}
	if len(absent) > 0 {
		found.add(e.absentDelegations(absent))
	}
	return found
}

// rejections is a bounded list without duplicates.
type rejections []trust.Rejection

func (all *rejections) add(r trust.Rejection) {
	if !all.full() && !slices.Contains(*all, r) {
		*all = append(*all, r)
	}
}

func (all *rejections) full() bool { return len(*all) >= maxRejections }

// missingFiles adds to found why files of a role do not count. It returns the delegations of the
// role if the repository has none of them.
func (e *evidence) missingFiles(role string, found *rejections) (absent []string) {
	if e.root == nil {
		return nil
	}
	delegations := e.root.delegationsOf(role)
	if err := checkMappable(delegations[0]); err != nil { // the role's own name: New has checked mapped ones
		found.add(trust.Rejection{By: fmt.Sprintf("role %.80q", role), Why: fmt.Sprintf("cannot be proven: %v", err)})
		return nil
	}
	present := false
	for _, d := range delegations {
		if refused := e.rejectedAncestor(d); refused != "" {
			present = true
			found.add(trust.Rejection{By: refused + ".json", Void: true, Why: e.rejectedFiles[refused]})
		}
		present = present || d == targetsRole || e.has(d)
	}
	if present {
		return nil
	}
	return delegations
}

// parseDigest reads a digest as registries write it.
func parseDigest(text string) (digest [sha256.Size]byte, ok bool) {
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "sha256:"))
	return digest, err == nil && copy(digest[:], raw) == len(digest)
}

// rejectedFor returns the rejected targets of some roles: for a tag or, if that is empty, for a
// digest under any tag. Targets of files without a role come first.
func (e *evidence) rejectedFor(roles []string, tag, digest string) iter.Seq[rejectedTarget] {
	return func(yield func(rejectedTarget) bool) {
		wanted, ok := parseDigest(digest)
		for _, role := range append([]string{""}, roles...) {
			switch {
			case tag != "":
				for _, l := range findRange(e.rejected, func(l rejectedTarget) int { return l.compareTag(tag, role) }) {
					if !yield(l) {
						return
					}
				}
			case ok:
				for _, i := range findRange(e.rejectedByDigest,
					func(i int32) int { return e.rejected[i].compareDigest(wanted, role) }) {
					if !yield(e.rejected[i]) {
						return
					}
				}
			}
		}
	}
}

// findRange returns the elements of a sorted slice that compare to 0. It uses binary search.
func findRange[E any](sorted []E, compare func(E) int) []E {
	from, _ := slices.BinarySearchFunc(sorted, 0, func(l E, _ int) int { return compare(l) })
	rest := sorted[from:]
	to, _ := slices.BinarySearchFunc(rest, 1, func(l E, end int) int { return cmp.Compare(compare(l), end) })
	return rest[:to]
}

// rejectedAncestor returns the first of a delegation and its ancestors whose file does not count,
// or an empty string.
func (e *evidence) rejectedAncestor(delegation string) string {
	for ; delegation != "." && delegation != targetsRole; delegation = path.Dir(delegation) {
		if _, ok := e.rejectedFiles[delegation]; ok {
			return delegation
		}
	}
	return ""
}

// has reports whether the repository has a delegation.
func (e *evidence) has(delegation string) bool {
	_, found := slices.BinarySearch(e.delegations, delegation)
	return found
}

// absentDelegations returns the rejection for delegations that the repository does not have. It
// names the existing ones.
func (e *evidence) absentDelegations(delegations []string) trust.Rejection {
	slices.Sort(delegations)
	delegations = slices.Compact(delegations)
	has := "none"
	if len(e.delegations) > 0 {
		has = joinNames(e.delegations)
	}
	if len(delegations) == 1 {
		return trust.Rejection{By: "delegation " + delegations[0], Why: "is not in this repository, which has " + has}
	}
	return trust.Rejection{
		By: "delegations " + joinNames(delegations), Why: "are not in this repository, which has " + has,
	}
}

// delegationsOf returns the delegations that count for a role.
func (r *Root) delegationsOf(role string) []string {
	for _, s := range r.roles {
		if s.role == role {
			return s.delegations
		}
	}
	return []string{targetsRole + "/" + role}
}

// joinNames joins the first maxNamed names with commas.
func joinNames(names []string) string {
	if more := len(names) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), more)
	}
	return strings.Join(names, ", ")
}
