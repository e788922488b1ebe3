package bench

import (
	"cmp"
	"slices"
)

// median returns the middle one of what was measured; there is at least one.
func median[T cmp.Ordered](all []T) T {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}
