package notary

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cmpdiff "github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/trust"
)

// TestStatementIndex compares each lookup with a search through all statements. The tags, digests
// and roles are few, so that tags have several digests, digests several tags, and both of them
// different roles.
func TestStatementIndex(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		all := randomStatements(random, int(seed))
		x := newStatementIndex(all)
		tags, digests := []string{"", "v", "v1v", "unknown"}, []string{"", digestOf("unknown")}
		for i := range 5 {
			tags = append(tags, fmt.Sprintf("v%d", i))
			digests = append(digests, digestOf(fmt.Sprint(i)))
		}
		for _, tag := range tags {
			for _, digest := range digests {
				if diff := cmpdiff.Diff(search(all, tag, digest), x.find(tag, digest)); diff != "" {
					t.Fatalf("seed %d, tag %q, digest %q: (-want +got):\n%s", seed, tag, digest, diff)
				}
			}
		}
	}
}

func randomStatements(random *rand.Rand, n int) []rawStatement {
	proofs := make([]*roleProof, 4)
	for i := range proofs {
		proofs[i] = &roleProof{
			role: fmt.Sprint("role-", i), keys: []string{fmt.Sprint(i)}, notAfter: time.Unix(int64(i), 0),
		}
	}
	var all []rawStatement
	for range n {
		all = append(all, rawStatement{
			tag: fmt.Sprintf("v%d", random.IntN(5)), digest: sha256.Sum256(fmt.Append(nil, random.IntN(5))),
			proof: proofs[random.IntN(len(proofs))],
		})
	}
	slices.SortFunc(all, func(a, b rawStatement) int {
		return cmp.Or(strings.Compare(a.tag, b.tag), bytes.Compare(a.digest[:], b.digest[:]),
			strings.Compare(a.proof.role, b.proof.role))
	})
	return slices.Compact(all)
}

// search returns what an index must find.
func search(all []rawStatement, tag, digest string) []trust.Statement {
	var found []trust.Statement
	for _, s := range all {
		if text := digestText(s.digest); (tag == "" || tag == s.tag) && (digest == "" || digest == text) {
			found = append(found, trust.Statement{
				Digest: text, Tag: s.tag, Role: s.proof.role, Keys: s.proof.keys, NotAfter: s.proof.notAfter,
			})
		}
	}
	if tag == "" && digest != "" {
		slices.SortStableFunc(found, func(a, b trust.Statement) int { return strings.Compare(a.Role, b.Role) })
	}
	return found
}

// A digest is found in the one text that registries give it.
func TestOtherTextsOfADigestAreNotSigned(t *testing.T) {
	all := randomStatements(rand.New(rand.NewPCG(1, 1)), 40)
	x := newStatementIndex(all)
	digest := digestText(all[0].digest)
	if len(x.find("", digest)) == 0 || len(x.find(all[0].tag, digest)) == 0 {
		t.Fatal("the digest is not found")
	}
	digits := strings.TrimPrefix(digest, digestPrefix)
	for name, text := range map[string]string{
		"capitals": digestPrefix + strings.ToUpper(digits), "no algorithm": digits,
		"another algorithm": "sha512:" + digits,
		"too short":         digest[:len(digest)-2], "too long": digest + "00",
		"no digits":           digestPrefix + strings.Repeat("g", 64),
		"a colon for a digit": digestPrefix + digits[:63] + ":", "a blank": digestPrefix + digits[:63] + " ",
	} {
		if found := x.find("", text); len(found) > 0 {
			t.Errorf("%s: %q gave %v", name, text, found)
		}
		if found := x.find(all[0].tag, text); len(found) > 0 {
			t.Errorf("%s: %q with its tag gave %v", name, text, found)
		}
	}
}

// Hostile metadata can have as many combinations of proofs as targets; the size says so.
func TestStatementIndexSize(t *testing.T) {
	var all []rawStatement
	for i := range 2000 {
		all = append(all, rawStatement{
			tag: fmt.Sprintf("v%04d", i), digest: sha256.Sum256(fmt.Append(nil, i)), proof: &roleProof{role: "ci"},
		})
	}
	before := heap()
	x := newStatementIndex(all)
	took := int64(heap()) - int64(before)
	if size := x.size(); size < took*9/10 || size > took*11/10 {
		t.Errorf("got a size of %d bytes, want about the %d that it takes", size, took)
	}
	if got := len(x.find("v0007", "")); got != 1 {
		t.Errorf("got %d statements, want 1", got)
	}
	runtime.KeepAlive(all)
}
