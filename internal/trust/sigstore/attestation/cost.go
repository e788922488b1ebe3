package attestation

import (
	"math"
	"unicode"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// deepCost charges what CEL does not. CEL charges two lists or objects by their length alone,
// whatever they contain, so that comparing a statement with itself, again and again, would cost
// nearly nothing. It charges an operator one unit if it knows the types only at evaluation, as of
// all that a statement contains.
type deepCost struct{}

// CallCost implements interpreter.ActualCostEstimator. Nil is CEL's own cost.
func (deepCost) CallCost(function, overload string, args []ref.Val, _ ref.Val) *uint64 {
	cost := uint64(1)
	list, isList := args[len(args)-1].(traits.Lister)
	switch {
	case function == operators.Equals || function == operators.NotEquals:
		cost += compared(args[0], args[1])
	case function == operators.In && isList:
		for it := list.Iterator(); it.HasNext() == types.True; {
			cost += compared(args[0], it.Next())
		}
	case overload == "":
		for _, arg := range args {
			if s, ok := arg.(types.String); ok {
				cost += traversed(len(s))
			}
		}
	default:
		return nil
	}
	return &cost
}

// traversed returns the cost of reading a text of so many bytes.
func traversed(bytes int) uint64 {
	return uint64(math.Ceil(float64(bytes) * common.StringTraversalCostFactor))
}

// compared returns what comparing two values costs at most. It takes no longer than that.
func compared(a, b ref.Val) uint64 {
	cost := uint64(1)
	switch x := a.(type) {
	case types.String:
		if y, ok := b.(types.String); ok {
			cost += traversed(min(len(x), len(y)))
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
