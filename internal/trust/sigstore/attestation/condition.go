package attestation

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"

	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// MaxConditions bounds the conditions of a role.
	MaxConditions = 16
	// MaxCondition bounds the length of a condition, in bytes.
	MaxCondition = 2048

	// maxCost bounds the cost of one condition, in CEL's units, and maxTotalCost that of all that
	// are evaluated for one verdict. A step of a loop over a list has five to fifteen units: enough
	// for an image with 20,000 packages. CEL's own accounting takes time that grows with the square
	// of the steps, so that ten times as much would take a minute.
	maxCost      = 250_000
	maxTotalCost = 4 * maxCost

	// maxShown bounds what a message shows of a condition or of an error, in bytes.
	maxShown = 200
)

// condition is a compiled condition. It is safe for concurrent use.
type condition struct {
	index   int
	source  string
	program cel.Program
}

// unbounded are the functions of CEL's extension for strings that a condition must not use. The
// limit on the cost notices a call only when it has returned. The result of these can be much
// larger than their arguments, or their time is not linear.
const unbounded = "|format|indexOf|join|lastIndexOf|replace|split|strings.quote|"

// environment returns CEL's standard library and its extension for strings. There is no clock and
// no other source of facts, so that a verdict can be kept.
func environment() (*cel.Env, error) {
	env, err := cel.NewEnv(
		cel.Variable("statement", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("predicate", cel.MapType(cel.StringType, cel.DynType)),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.EagerlyValidateDeclarations(true),
		cel.ParserExpressionSizeLimit(MaxCondition),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
		ext.Strings(ext.StringsVersion(5)),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	return env, nil
}

// compile compiles a condition. The error is the rest of a sentence that begins with the field.
func compile(env *cel.Env, index int, source string) (*condition, error) {
	if len(source) > MaxCondition {
		return nil, fmt.Errorf("is longer than %d bytes", MaxCondition)
	}
	checked, issues := env.Compile(source)
	if issues.Err() != nil {
		// The error as a whole has several lines, with the source.
		first := issues.Errors()[0]
		return nil, fmt.Errorf("is not a valid CEL expression: line %d, column %d: %s", first.Location.Line(),
			max(first.Location.Column(), 0)+1, shown(first.Message))
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		if t.IsExactType(cel.DynType) {
			return nil, errors.New("must be a bool, and its type is not known: write == true")
		}
		return nil, fmt.Errorf("must be a bool, and is of the type %s", t)
	}
	if err := checkCalls(checked.NativeRep().Expr()); err != nil {
		return nil, err
	}
	if cost, err := env.EstimateCost(checked, unknownSizes{}); err != nil || cost.Min > maxCost {
		return nil, errors.New("always costs more than the limit: make it simpler")
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost), cel.CostLimit(maxCost),
		cel.CostTracking(deepCost{}))
	if err != nil {
		return nil, fmt.Errorf("is not a valid CEL expression: %s", shown(err.Error()))
	}
	return &condition{index: index, source: source, program: program}, nil
}

// checkCalls refuses calls that a statement could make take up any amount of memory or time: the
// unbounded functions, and a pattern of matches that is no literal.
func checkCalls(e ast.Expr) error {
	var err error
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		name, args := e.AsCall().FunctionName(), e.AsCall().Args()
		switch {
		case strings.Contains(unbounded, "|"+name+"|"):
			err = fmt.Errorf("must not use %s, whose cost has no bound", name)
		case name == "matches" && args[len(args)-1].Kind() != ast.LiteralKind:
			err = errors.New("must not take the pattern of matches from the statement: write a literal")
		}
	}))
	return err
}

// evaluate evaluates the condition over a statement, and returns why it is not met, as the rest of
// a sentence that begins with the attestation; empty if it is met. Only true is met. cost is what
// it has cost.
func (c *condition) evaluate(s *statement) (why string, cost uint64) {
	result, details, err := c.program.Eval(map[string]any{"statement": s.all, "predicate": s.predicate})
	if spent := details.ActualCost(); spent != nil {
		cost = *spent
	} else {
		cost = maxCost
	}
	switch {
	case err == nil && result == types.True:
		return "", cost
	case err == nil:
		return "does not meet " + c.String(), cost
	}
	reason := err.Error()
	if cancelled, ok := errors.AsType[interpreter.EvalCancelledError](err); ok {
		reason = "the statement is too large for it (" + cancelled.Message + ")"
	}
	return fmt.Sprintf("does not meet %s: %s", c, shown(reason)), cost
}

// String names the condition in messages.
func (c *condition) String() string {
	return fmt.Sprintf("conditions[%d] (%s)", c.index, shown(c.source))
}

// unknownSizes knows nothing about the sizes of the statement. The least cost is then exact for
// what is written in the condition itself.
type unknownSizes struct{}

// EstimateSize implements checker.CostEstimator.
func (unknownSizes) EstimateSize(checker.AstNode) *checker.SizeEstimate { return nil }

// EstimateCallCost implements checker.CostEstimator.
func (unknownSizes) EstimateCallCost(_, _ string, _ *checker.AstNode, _ []checker.AstNode) *checker.CallEstimate {
	return nil
}

// shown returns a text for a message, on one line.
func shown(s string) string {
	return text.Cut(strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), unprintable), " "), maxShown)
}
