package attestation

import (
	"math"
	"unicode"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// deepCost charges a comparison for what it compares. CEL itself charges two lists or objects by
// their length alone, whatever they contain, so that comparing a statement with itself, again and
// again, would cost nearly nothing.
type deepCost struct{}

// CallCost implements interpreter.ActualCostEstimator. Nil is CEL's own cost.
func (deepCost) CallCost(_, overload string, args []ref.Val, _ ref.Val) *uint64 {
	cost := uint64(1)
	switch overload {
	case overloads.Equals, overloads.NotEquals:
		cost += compared(args[0], args[1])
	case overloads.InList:
		list, ok := args[1].(traits.Lister)
		if !ok {
			return nil
		}
		for it := list.Iterator(); it.HasNext() == types.True; {
			cost += compared(args[0], it.Next())
		}
	default:
		return nil
	}
	return &cost
}

// compared returns what comparing two values costs at most. It takes no longer than that.
func compared(a, b ref.Val) uint64 {
	cost := uint64(1)
	switch x := a.(type) {
	case types.String:
		if y, ok := b.(types.String); ok {
			cost += uint64(math.Ceil(float64(min(len(x), len(y))) * common.StringTraversalCostFactor))
		}
	case traits.Mapper:
		y, ok := b.(traits.Mapper)
		if !ok || x.Size() != y.Size() {
			break
		}
		for it := x.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			if other, found := y.Find(key); found {
				cost += compared(x.Get(key), other)
			}
			cost++
		}
	case traits.Lister:
		y, ok := b.(traits.Lister)
		if !ok || x.Size() != y.Size() {
			break
		}
		for i, j := x.Iterator(), y.Iterator(); i.HasNext() == types.True && j.HasNext() == types.True; {
			cost += compared(i.Next(), j.Next())
		}
	}
	return cost
}

// unprintable reports whether a character has no visible form: messages show a space.
func unprintable(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }
