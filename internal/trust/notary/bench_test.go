package notary

import (
	"fmt"
	"testing"
)

// large returns a repository with a hundred tags that three delegations have signed.
func large(b testing.TB) *virtual {
	b.Helper()
	v := newVirtual(b)
	v.delegate("targets/security", nil)
	for i := range 100 {
		for _, role := range []string{"ci", "qa", "security"} {
			v.roles["targets/"+role].targets[fmt.Sprintf("v1.2.%d", i)] = entry(fmt.Sprint("manifest", i))
		}
	}
	v.bump("root")
	v.publish()
	return v
}

func BenchmarkLookup(b *testing.B) {
	v := large(b)
	ev := mustFetch(b, v.root(v.config()), nil)
	digest := digestOf("manifest7")
	for b.Loop() {
		if len(ev.Statements("v1.2.7", "")) != 3 || len(ev.Statements("", digest)) != 3 {
			b.Fatal("not found")
		}
	}
}

// BenchmarkRecheck measures the full verification of a repository.
func BenchmarkRecheck(b *testing.B) {
	v := large(b)
	r := v.root(v.config())
	ev := mustFetch(b, r, nil)
	cfg := v.config()
	cfg.Roles = []Role{{Name: "qa", Threshold: 1}} // changes no result, but forces a verification
	other := v.root(cfg)
	for b.Loop() {
		if _, err := other.Recheck(of(testGUN), ev); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRevokeAnother measures a revocation for a repository that does not use the key.
func BenchmarkRevokeAnother(b *testing.B) {
	v := large(b)
	ev := mustFetch(b, v.root(v.config()), nil)
	cfg := v.config()
	cfg.RevokedKeys = []string{newKey(b, "ecdsa", "").canonical}
	r := v.root(cfg)
	for b.Loop() {
		if _, err := r.Recheck(of(testGUN), ev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefreshUnchanged(b *testing.B) {
	v := large(b)
	r := v.root(v.config())
	ev := mustFetch(b, r, nil)
	for b.Loop() {
		if next := mustFetch(b, r, ev); next != ev {
			b.Fatal("changed")
		}
	}
}
