package inspection

import (
	"maps"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// Relevant returns the trust roots and the roles of the policies whose patterns match a repository,
// in any namespace, sorted. Where no policy matches, it returns no role, and nil for all trust
// roots.
func Relevant(policies []*v1alpha1.ImagePolicy, repository imageref.Ref) (roots, roles []string) {
	allRoots, allRoles := map[string]bool{}, map[string]bool{}
	for _, p := range policies {
		if !matches(p.Spec.Images, repository) || matches(p.Spec.ExceptImages, repository) {
			continue
		}
		for _, root := range p.Spec.TrustRoots {
			allRoots[string(root)] = true
		}
		for _, requirement := range p.Spec.RequiredRoles {
			for _, role := range append([]v1alpha1.RoleName{requirement.Role}, requirement.AnyOf...) {
				if role != "" {
					allRoles[string(role)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(allRoots)), slices.Sorted(maps.Keys(allRoles))
}

// matches reports whether a pattern matches. A pattern that cannot be read matches nothing here.
func matches(patterns []v1alpha1.ImagePattern, repository imageref.Ref) bool {
	return slices.ContainsFunc(patterns, func(pattern v1alpha1.ImagePattern) bool {
		parsed, err := imageref.ParsePattern(string(pattern))
		return err == nil && parsed.Match(repository)
	})
}
