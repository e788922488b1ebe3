package notarysign

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Revoke removes a tag from targets and from every delegation of which a key is here. An empty tag
// means all tags. With a role it removes it from the delegation of this name alone, or from
// targets. It returns the names of the roles. A tag that other roles still list is a warning.
func (r *Repository) Revoke(tag, role string) ([]string, error) {
	var from, left []string
	listed := false
	for _, full := range slices.Sorted(maps.Keys(r.files)) {
		entry := r.files[full]
		tags := entry.listed(tag)
		if len(tags) == 0 {
			continue
		}
		listed = true
		if role != "" && full != role && full != RoleTargets+"/"+role {
			continue
		}
		ready, err := r.canSign(full)
		if err != nil {
			return nil, err
		}
		if !ready && role == "" {
			left = append(left, shortName(full))
			continue
		}
		r.edit(full)
		for _, t := range tags {
			delete(entry.Targets, t)
			r.note("remove %s from %s", t, full)
		}
		from = append(from, shortName(full))
	}
	what := tag
	if tag == "" {
		what = "any tag"
	}
	switch {
	case !listed:
		return nil, fmt.Errorf("no role of %s has signed %s", r.name, what)
	case len(from) == 0 && role != "":
		return nil, fmt.Errorf("%s has not signed %s of %s", role, what, r.name)
	case len(from) == 0:
		return nil, fmt.Errorf("the key store has no key of the roles that have signed %s: %s", what,
			strings.Join(left, ", "))
	case len(left) > 0:
		r.warn("%s is still signed by %s, whose keys are not here", what, strings.Join(left, ", "))
	}
	return from, nil
}

// listed returns the tag if the file lists it, or all tags for an empty one, sorted.
func (t *targetsEntry) listed(tag string) []string {
	if tag == "" {
		return slices.Sorted(maps.Keys(t.Targets))
	}
	if _, ok := t.Targets[tag]; ok {
		return []string{tag}
	}
	return nil
}
