package bench

import (
	"cmp"
	"slices"
)

// median returns the median of at least one measurement.
func median[T cmp.Ordered](all []T) T {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}
