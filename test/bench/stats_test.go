package bench

import (
	"cmp"
	"slices"
)

// median returns the median of at least one measurement.
func median[T cmp.Ordered](all []T) T { return percentile(all, 50) }

// percentile returns the measurement that p percent of at least one are below.
func percentile[T cmp.Ordered](all []T, p int) T {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)*p/100]
}
