package attestation

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// unmet evaluates one condition over a predicate, and returns why it is not met.
func unmet(t *testing.T, condition, predicate string) string {
	t.Helper()
	budget := uint64(maxTotalCost)
	return rule(t, Spec{PredicateType: loadTest, Conditions: []string{condition}}).
		unmet(statementOf(image, loadTest, predicate), &budget)
}

// A condition that errs is not met, also under a negation, and the reason says why.
func TestThreatConditionThatErrs(t *testing.T) {
	cases := map[string]struct{ condition, predicate, want string }{
		"a member that is missing": {`predicate.a == 1`, `{}`, "no such key: a"},
		"under a negation":         {`!(predicate.a.b == 1)`, `{"a":{}}`, "no such key: b"},
		"no list":                  {`!predicate.all.exists(v, v.severity == 'HIGH')`, `{}`, "no such key: all"},
		"a list of another kind":   {`!predicate.a.exists(v, v.severity == 'HIGH')`, `{"a":[1]}`, "no such key"},
		"an object for a list": {
			`!predicate.a.exists(v, v.severity == 'HIGH')`, `{"a":{"b":1}}`, "no such key",
		},
		"a member of a list": {`predicate.a[3] == 1`, `{"a":[1]}`, "index out of bounds: 3"},
		"another type":       {`predicate.a > 1`, `{"a":"2"}`, "no such overload"},
		"no time": {
			`timestamp(predicate.a) > timestamp('2026-01-01T00:00:00Z')`, `{"a":"yesterday"}`, "type conversion error",
		},
		"a division by zero":          {`1 / predicate.a == 1`, `{"a":0}`, "division by zero"},
		"no predicate":                {`predicate.a == 1`, `null`, "no such key: a"},
		"a text with lines is on one": {`int(predicate.a) == 1`, `{"a":"x\ny"}`, "type conversion error"},
		"a long text is cut": {
			`predicate.b[predicate.a] == 1`, `{"b":{},"a":"` + strings.Repeat("x", 10_000) + `"}`, "xxx...",
		},
		"an error that makes both sides": {`predicate.a == 1 || predicate.b == 1`, `{"b":2}`, "no such key: a"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := unmet(t, c.condition, c.predicate)
			if want := "does not meet conditions[0] (" + c.condition + "): "; !strings.HasPrefix(got, want) ||
				!strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q and %q", got, want, c.want)
			}
			if strings.ContainsAny(got, "\n\r") || len(got) > 3*maxShown {
				t.Errorf("got %d bytes, want one short line", len(got))
			}
		})
	}
	// What is not evaluated does not err.
	if got := unmet(t, `!has(predicate.a) || predicate.a.b == 1`, `{}`); got != "" {
		t.Errorf("got %s, want met", got)
	}
}

func TestNumbers(t *testing.T) {
	for condition, met := range map[string]bool{
		`predicate.i == 2`: true, `predicate.i < 3`: true, `predicate.i + 1 == 3`: true, `predicate.i < 2.5`: true,
		`predicate.d == 2.5`: true, `predicate.d < 3`: true, `predicate.d > 2`: true, `predicate.whole == 2`: true,
		`predicate.large == 9007199254740993`: true, `predicate.large == 9007199254740992`: false,
		`predicate.unsigned == 18446744073709551615u`: true, `predicate.n == null`: true, `predicate.i == '2'`: false,
		`type(predicate.d) == double && type(predicate.i) == int`: true,
	} {
		got := unmet(t, condition,
			`{"i":2,"d":2.5,"whole":2.0,"large":9007199254740993,"unsigned":18446744073709551615,"n":null}`)
		if (got == "") != met {
			t.Errorf("%s: got %q, want met %t", condition, got, met)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	const field = "spec.sigstore.roles[0].attestation"
	one := func(condition string) Spec {
		return Spec{PredicateType: loadTest, Conditions: []string{"true", condition}}
	}
	cases := map[string]struct {
		spec Spec
		want string
	}{
		"no type":   {Spec{}, ".predicateType: is empty"},
		"long type": {Spec{PredicateType: strings.Repeat("t", maxType+1)}, ".predicateType: is longer than 1024 bytes"},
		"signatures": {Spec{PredicateType: SignatureType},
			".predicateType: is the type of signatures: remove attestation"},
		"negative age": {Spec{PredicateType: loadTest, MaxAge: -1}, ".maxAge: must not be negative"},
		"many conditions": {Spec{PredicateType: loadTest, Conditions: make([]string, MaxConditions+1)},
			".conditions: at most 16 may be listed"},
		"long condition": {
			one(strings.Repeat(" ", MaxCondition) + "true"), ".conditions[1]: is longer than 2048 bytes",
		},
		"empty":  {one(""), ".conditions[1]: is not a valid CEL expression: line 1, column 1: Syntax error: "},
		"syntax": {one("true &&"), ".conditions[1]: is not a valid CEL expression: line 1, column 8: Syntax error: "},
		"another variable": {one("true\n&& object.a == 1"),
			".conditions[1]: is not a valid CEL expression: line 2, column 4: undeclared reference to 'object' (in " +
				"container '')"},
		"no bool": {one("1"), ".conditions[1]: must be a bool, and is of the type int"},
		"unknown": {one("predicate.a"), ".conditions[1]: must be a bool, and its type is not known: write == true"},
		"types": {
			one("1 == 'a'"),
			".conditions[1]: is not a valid CEL expression: line 1, column 3: found no matching overload",
		},
		"regexp": {
			one("predicate.a.matches('(')"),
			".conditions[1]: is not a valid CEL expression: line 1, column 21: invalid matches",
		},
		"a pattern of the statement": {one("'a'.matches(predicate.a)"),
			".conditions[1]: must not take the pattern of matches from the statement: write a literal"},
		"a pattern of the statement, nested": {one("['a'].exists(v, matches(v, predicate.a + '$'))"),
			".conditions[1]: must not take the pattern of matches from the statement: write a literal"},
		"a clock": {
			one("now() > timestamp(predicate.a)"),
			".conditions[1]: is not a valid CEL expression: line 1, column 4: undeclared reference to 'now'",
		},
		"replace": {
			one("predicate.a.replace('a', predicate.a) == 'b'"),
			".conditions[1]: must not use replace, whose cost has no bound",
		},
		"format": {
			one("'%s'.format([statement]) == 'b'"), ".conditions[1]: must not use format, whose cost has no bound",
		},
		"split": {
			one("predicate.a.split('')[0] == 'b'"), ".conditions[1]: must not use split, whose cost has no bound",
		},
		"join": {
			one("['a', 'b'].join(string(predicate.a)) == 'b'"),
			".conditions[1]: must not use join, whose cost has no bound",
		},
		"quote": {
			one("strings.quote(predicate.a) == 'b'"),
			".conditions[1]: must not use strings.quote, whose cost has no bound",
		},
		"a search": {
			one("predicate.a.indexOf(predicate.b) == 1"),
			".conditions[1]: must not use indexOf, whose cost has no bound",
		},
		"a search from the end": {one("predicate.a.lastIndexOf(predicate.b) == 1"),
			".conditions[1]: must not use lastIndexOf, whose cost has no bound"},
		"always too much": {one(strings.Repeat("[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0].map(x, ", 6) + "1" +
			strings.Repeat(")", 6) + " == []"),
			".conditions[1]: always costs more than the limit: make it simpler"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(field, c.spec)
			if err == nil {
				t.Fatal("got no error")
			}
			if got := err.Error(); !strings.HasPrefix(got, field+c.want) || strings.Contains(got, "\n") {
				t.Errorf("got %s\nwant %s", got, field+c.want)
			}
		})
	}
}

// A statement cannot make a condition cost more than the limit, whatever CEL itself charges.
func TestThreatCostOfAConditionIsBounded(t *testing.T) {
	numbers := strings.Repeat("1,", 2_000) + "1"
	words := strings.Repeat(`"`+strings.Repeat("w", 100)+`",`, 2_000) + `""`
	for name, c := range map[string]struct{ condition, predicate string }{
		"a loop in a loop": {`predicate.a.all(x, predicate.a.all(y, x == y))`, `{"a":[` + numbers + `]}`},
		"the statement compared with itself in a loop": {`predicate.a.all(x, statement == statement)`,
			`{"a":[` + numbers + `]}`},
		"a list that contains a large value": {`predicate.a.all(x, predicate.b in [predicate.b])`,
			`{"a":[` + numbers + `],"b":{"c":[` + words + `]}}`},
		"a list of the statement that contains a large value": {`predicate.a.all(x, predicate.b in predicate.d)`,
			`{"a":[` + numbers + `],"b":{"c":[` + words + `]},"d":[{"c":[` + words + `]}]}`},
		"a text that grows": {`predicate.a.map(x, predicate.b + predicate.b).size() > 0`,
			`{"a":[` + numbers + `],"b":"` + strings.Repeat("w", 100_000) + `"}`},
		"a pattern in a loop": {`predicate.a.all(x, predicate.b.matches('^(w|ww|www)*$'))`,
			`{"a":[` + numbers + `],"b":"` + strings.Repeat("w", 100_000) + `"}`},
		"a search in a loop": {`predicate.a.all(x, !predicate.b.contains(predicate.c))`,
			`{"a":[` + numbers + `],"b":"` + strings.Repeat("w", 100_000) + `","c":"` + strings.Repeat("w", 5_000) +
				`x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := unmet(t, c.condition, c.predicate)
			if !strings.Contains(got,
				"the statement is too large for it (operation cancelled: actual cost limit exceeded)") {
				t.Errorf("got %q, want that the cost exceeds the limit", got)
			}
		})
	}
}

// All conditions of a verdict share one budget, and each payload is evaluated once.
func TestThreatCostOfAVerdictIsBounded(t *testing.T) {
	numbers := strings.Repeat("1,", 3_000) + "1"
	r := rule(t, Spec{
		PredicateType: loadTest, Conditions: []string{`predicate.a.all(x, x > 0 && x < 2 && x == 1 && x != 3)`},
	})
	costly := func(i int, ago ...time.Duration) Verified {
		v := passed(true, "a", ago...)
		v.Payload = statementOf(image, loadTest, fmt.Sprintf(`{"i":%d,"a":[%s]}`, i, numbers))
		return v
	}
	var same, others []Verified
	for i := range 64 {
		same = append(same, costly(0))
		others = append(others, costly(i))
	}
	if v := r.Judge(image, nil, same); !signed(v, now) {
		t.Errorf("one payload many times: got not met:\n%s", reasons(v, now))
	}
	v := r.Judge(image, nil, others)
	if signed(v, now) ||
		!strings.Contains(reasons(v, now), "the attestations are too many or too large to evaluate it") {
		t.Errorf("many payloads: got met %t, %s; want that there are too many", signed(v, now), reasons(v, now))
	}
	// Older ones are not evaluated.
	for i := range others {
		others[i].Time = now.Add(-time.Duration(i+2) * time.Hour)
	}
	if v := r.Judge(image, nil, append(others, costly(100, time.Hour))); !signed(v, now) {
		t.Errorf("many older payloads: got not met:\n%s", reasons(v, now))
	}
}

// Decoding takes no more memory than Cost says.
func TestThreatMemoryOfAStatementIsBounded(t *testing.T) {
	const n = 20_000
	for name, value := range map[string]string{
		"numbers":       "[" + strings.Repeat("1,", n) + "1]",
		"empty objects": "[" + strings.Repeat("{},", n) + "1]",
		"small objects": "[" + strings.Repeat(`{"":0},`, n) + "1]",
		"empty lists":   "[" + strings.Repeat("[],", n) + "1]",
		"small lists":   "[" + strings.Repeat("[0],", n) + "1]",
		"short texts":   "[" + strings.Repeat(`"ab",`, n) + "1]",
		"one text":      `"` + strings.Repeat("a", 10*n) + `"`,
		"escapes":       `"` + strings.Repeat(`\u00e9`, n) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			payload := statementOf(image, loadTest, `{"a":`+value+`}`)
			want := uint64(Cost([]Verified{{Payload: payload}}))
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s, err := parse(payload, loadTest)
			runtime.GC()
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if got := after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc); got > want {
				t.Errorf("got %d bytes for %d values, want at most %d", got, n, want)
			}
			runtime.KeepAlive(s)
		})
	}
}
