package attestation

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/trust/sigstore/identity"
)

// statementOf returns a statement of the load test about an image.
func statementOf(digest, predicateType, predicate string) []byte {
	return fmt.Appendf(nil,
		`{"_type":%q,"subject":[{"name":"app","digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`,
		statementV1, strings.TrimPrefix(digest, "sha256:"), predicateType, predicate)
}

// passed returns a load test that an entry of the role has signed, verified so long ago. Nothing:
// it has no verified time.
func passed(ok bool, entry string, ago ...time.Duration) Verified {
	v := Verified{
		Name: fmt.Sprintf("%s %v", entry, ago), PayloadType: PayloadType,
		Signer:  identity.Signer{Entry: entry, Key: "key of " + entry},
		Payload: statementOf(image, loadTest, fmt.Sprintf(`{"passed":%t}`, ok)),
	}
	for _, d := range ago {
		v.Time = now.Add(-d)
	}
	return v
}

// One newer attestation that does not meet the rule outweighs every older one that does, whoever
// has signed them.
func TestThreatOlderGoodAttestationBesideANewerBad(t *testing.T) {
	broken := func(entry string, ago time.Duration) Verified {
		v := passed(true, entry, ago)
		v.Payload = append(v.Payload, '}')
		return v
	}
	cases := map[string]struct {
		all  []Verified
		want bool
	}{
		"one good":                         {[]Verified{passed(true, "a", 1)}, true},
		"one bad":                          {[]Verified{passed(false, "a", 1)}, false},
		"older good, newer bad":            {[]Verified{passed(true, "a", 2), passed(false, "a", 1)}, false},
		"newer bad, older good":            {[]Verified{passed(false, "a", 1), passed(true, "a", 2)}, false},
		"older bad, newer good":            {[]Verified{passed(false, "a", 2), passed(true, "a", 1)}, true},
		"older good, newer bad by another": {[]Verified{passed(true, "a", 2), passed(false, "b", 1)}, false},
		"older bad by another, newer good": {[]Verified{passed(true, "a", 1), passed(false, "b", 2)}, true},
		"both at one time":                 {[]Verified{passed(true, "a", 1), passed(false, "a", 1)}, false},
		"both good at one time":            {[]Verified{passed(true, "a", 1), passed(true, "a", 1)}, true},
		"older good, newer one broken":     {[]Verified{passed(true, "a", 2), broken("a", 1)}, false},
		"older one broken, newer good":     {[]Verified{broken("a", 2), passed(true, "a", 1)}, true},
		"none has a time, all good":        {[]Verified{passed(true, "a"), passed(true, "b")}, true},
		"none has a time, one bad":         {[]Verified{passed(true, "a"), passed(false, "b")}, false},
		"none has a time, the last one bad": {
			[]Verified{passed(true, "a"), passed(true, "a"), passed(false, "a")}, false,
		},
		"bad without a time, good with one": {[]Verified{passed(false, "a"), passed(true, "a", 1)}, true},
		"good without a time, bad with one": {[]Verified{passed(true, "a"), passed(false, "a", 1)}, false},
		"nothing":                           {nil, false},
	}
	r := rule(t, Spec{PredicateType: loadTest, Conditions: []string{"predicate.passed == true"}})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			v := r.Judge(image, nil, c.all)
			if got := signed(v, now); got != c.want {
				t.Errorf("got met %t, want %t:\n%s", got, c.want, reasons(v, now))
			}
			if !c.want && reasons(v, now) == "" {
				t.Error("got no reason")
			}
		})
	}
}

func TestThreatAttestationOlderThanAllowed(t *testing.T) {
	r := rule(t, Spec{PredicateType: loadTest, MaxAge: 720 * time.Hour})
	v := r.Judge(image, nil, []Verified{passed(true, "a", time.Hour), passed(true, "a", 1000*time.Hour)})
	end := now.Add(719 * time.Hour)
	for at, want := range map[time.Time]bool{now: true, end: true, end.Add(1): false} {
		signers, until, ok := v.Signed(1, at)
		if ok != want {
			t.Errorf("%s: got met %t, want %t", at, ok, want)
		}
		if ok && (!until.Equal(end) || len(signers) != 1 || signers[0].Entry != "a") {
			t.Errorf("%s: got %v until %s, want a until %s", at, signers, until, end)
		}
	}
	if got := reasons(v, end); got != "" {
		t.Errorf("got %s, want no reason", got)
	}
	got := reasons(v, end.Add(1))
	want := "an attestation (https://example.com/load-test/v1) in a [1h0m0s] is older than maxAge allows: " +
		"it is of 2026-11-30T12:00:00Z, and may be 720h old"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	v = r.Judge(image, nil, []Verified{passed(true, "a")})
	if signed(v, now) {
		t.Error("got met without a verified time, want not met")
	}
	want = "an attestation (https://example.com/load-test/v1) in a [] has no time that a log or a timestamp " +
		"authority has verified, which maxAge needs"
	if got := reasons(v, now); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	// Without maxAge it counts at any time.
	v = rule(t, Spec{PredicateType: loadTest}).Judge(image, nil, []Verified{passed(true, "a", 1000*time.Hour)})
	if _, until, ok := v.Signed(1, now.AddDate(100, 0, 0)); !ok || !until.IsZero() {
		t.Errorf("got met %t until %s, want for ever", ok, until)
	}
}

// An attestation of another type, a signature, and an attestation about another image prove
// nothing. Nor do they outweigh anything.
func TestThreatAttestationOfAnotherType(t *testing.T) {
	with := func(change func(*Verified)) Verified {
		v := passed(true, "a", 0)
		change(&v)
		return v
	}
	cases := map[string]struct {
		one  Verified
		want string
	}{
		"another type": {with(func(v *Verified) { v.Payload = statementOf(image, provenance, `{"passed":true}`) }),
			"an attestation of the type https://example.com/load-test/v1 is missing: the attestations are of the type " +
				"https://slsa.dev/provenance/v1"},
		"a newer version of the type": {with(func(v *Verified) {
			v.Payload = statementOf(image, loadTest+".1", `{"passed":true}`)
		}),
			"an attestation of the type https://example.com/load-test/v1 is missing: the attestations are of the type " +
				"https://example.com/load-test/v1.1"},
		"a signature": {with(func(v *Verified) { v.Payload = statementOf(image, SignatureType, `{"passed":true}`) }),
			"an attestation of the type https://example.com/load-test/v1 is missing: the attestations are of the type " +
				"https://sigstore.dev/cosign/sign/v1"},
		"the type in the predicate": {with(func(v *Verified) {
			v.Payload = statementOf(image, provenance, `{"passed":true,"predicateType":"`+loadTest+`"}`)
		}),
			"an attestation of the type https://example.com/load-test/v1 is missing: the attestations are of the type " +
				"https://slsa.dev/provenance/v1"},
		"the type in other letters": {with(func(v *Verified) {
			v.Payload = []byte(strings.Replace(string(v.Payload), "predicateType", "PredicateType", 1))
		}),
			"an envelope in a [0s] is no statement with a type of its predicate\n" +
				"an attestation of the type https://example.com/load-test/v1 is missing"},
		"a payload of another type": {with(func(v *Verified) {
			v.PayloadType = "application/vnd.dev.cosign.simplesigning.v1+json"
		}),
			"an envelope in a [0s] has a payload of the type \"application/vnd.dev.cosign.simplesigning.v1+json\", " +
				"which is no statement\nan attestation of the type https://example.com/load-test/v1 is missing"},
		"another image": {with(func(v *Verified) { v.Payload = statementOf(other, loadTest, `{"passed":true}`) }),
			"an attestation (https://example.com/load-test/v1) in a [0s] is about other images\n" +
				"an attestation of the type https://example.com/load-test/v1 is missing"},
		"no JSON": {with(func(v *Verified) { v.Payload = []byte(loadTest) }),
			"an envelope in a [0s] is no statement with a type of its predicate\n" +
				"an attestation of the type https://example.com/load-test/v1 is missing"},
	}
	r := rule(t, Spec{PredicateType: loadTest, Conditions: []string{"predicate.passed == true"}})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			v := r.Judge(image, nil, []Verified{c.one})
			if signed(v, now) {
				t.Error("got met, want not met")
			}
			if d := cmp.Diff(c.want, reasons(v, now)); d != "" {
				t.Errorf("reasons: -want +got:\n%s", d)
			}
			if v := r.Judge(image, nil, []Verified{c.one, passed(true, "a", 1)}); !signed(v, now) {
				t.Errorf("beside a good one: got not met, want met:\n%s", reasons(v, now))
			}
		})
	}
}

// An attestation that names the type beside another, in the same statement, is of the type: it
// cannot be read, and if it is the newest, the role is not proven.
func TestThreatAttestationOfTwoTypes(t *testing.T) {
	r := rule(t, Spec{PredicateType: loadTest})
	plain := string(statementOf(image, provenance, `{}`))
	for _, name := range []string{`"predicateType"`, `"predicate\u0054ype"`} {
		second := name + `:"` + loadTest + `"`
		for _, payload := range []string{"{" + second + "," + plain[1:], plain[:len(plain)-1] + "," + second + "}"} {
			v := passed(true, "a", 0)
			v.Payload = []byte(payload)
			got := r.Judge(image, nil, []Verified{v, passed(true, "a", 1)})
			if signed(got, now) || !strings.Contains(reasons(got, now), "has a name twice in an object") {
				t.Errorf("%s: got met %t, %s; want that a name is there twice", payload, signed(got, now),
					reasons(got, now))
			}
		}
	}
}

// A threshold counts entries whose own newest attestation meets the rule.
func TestThreshold(t *testing.T) {
	r := rule(t, Spec{PredicateType: loadTest, Conditions: []string{"predicate.passed == true"}, MaxAge: time.Hour})
	sameKey := passed(true, "b", time.Minute)
	sameKey.Signer.Key = "key of a"
	cases := map[string]struct {
		all   []Verified
		want  int // signers
		until time.Duration
	}{
		"two": {[]Verified{passed(true, "a", time.Minute), passed(true, "b", 2*time.Minute)}, 2, 58 * time.Minute},
		"two of one": {[]Verified{passed(true, "a", time.Minute), passed(true, "a", 2*time.Minute)}, 1,
			59 * time.Minute},
		"one key": {[]Verified{passed(true, "a", time.Minute), sameKey}, 1, 59 * time.Minute},
		"the other one has a newer bad one": {[]Verified{passed(true, "a", time.Minute),
			passed(false, "b", 2*time.Minute),
			passed(true, "b", 3*time.Minute)}, 1, 59 * time.Minute},
		"the other one has no time": {
			[]Verified{passed(true, "a", time.Minute), passed(true, "b")}, 1, 59 * time.Minute,
		},
		"the other one is old": {[]Verified{passed(true, "a", time.Minute), passed(true, "b", 2*time.Hour)}, 1,
			59 * time.Minute},
		"the newest one is bad": {[]Verified{passed(true, "a", time.Minute), passed(true, "b", time.Minute),
			passed(false, "c", time.Second)}, 0, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			v := r.Judge(image, nil, c.all)
			signers, until, ok := v.Signed(2, now)
			if len(signers) != c.want || ok != (c.want == 2) {
				t.Errorf("got %d signers, %t, want %d:\n%s", len(signers), ok, c.want, reasons(v, now))
			}
			if c.want > 0 && !until.Equal(now.Add(c.until)) {
				t.Errorf("got until %s, want %s", until, now.Add(c.until))
			}
		})
	}
}

func TestRejectionsAreBounded(t *testing.T) {
	var all []Verified
	for i := range 100 {
		v := passed(false, strings.Repeat("e", 10_000), time.Duration(i))
		v.PayloadType = fmt.Sprint(i, strings.Repeat("t", 10_000))
		all = append(all, v)
	}
	for i := range 100 {
		v := passed(false, "a", time.Duration(i))
		v.Payload = statementOf(image, fmt.Sprint("https://example.com/", i, strings.Repeat("t", 10_000)), "{}")
		all = append(all, v)
	}
	v := rule(t, Spec{PredicateType: loadTest}).Judge(image, nil, all)
	got := v.Rejected(now)
	if len(got) != maxRejections {
		t.Errorf("got %d rejections, want %d", len(got), maxRejections)
	}
	for _, r := range got {
		if len(r.By)+len(r.Why) > 8*maxShown {
			t.Errorf("got a rejection of %d bytes", len(r.By)+len(r.Why))
		}
		if r.Digest != image {
			t.Errorf("got digest %s, want %s", r.Digest, image)
		}
	}
	v = rule(t, Spec{PredicateType: loadTest}).Judge(image, nil, all[100:])
	if got := reasons(v, now); len(got) > 8*maxShown || !strings.HasSuffix(got, " and others") {
		t.Errorf("got %d bytes: %s", len(got), got)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		720 * time.Hour: "720h", 90 * time.Minute: "1h30m", 10 * time.Minute: "10m", 90 * time.Second: "1m30s",
		time.Second: "1s", time.Hour + time.Second: "1h0m1s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}
