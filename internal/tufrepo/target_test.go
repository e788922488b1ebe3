package tufrepo_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

func TestTarget(t *testing.T) {
	content := []byte(`{"a":1}`)
	in256, in512 := sha256.Sum256(content), sha512.Sum512(content)
	name256, name512 := hex.EncodeToString(in256[:]), hex.EncodeToString(in512[:])
	for name, tt := range map[string]struct {
		path, file string
		hashes     metadata.Hashes
		consistent bool
	}{
		"by sha256": {
			"trusted_root.json", "/targets/" + name256 + ".trusted_root.json",
			metadata.Hashes{"sha256": in256[:]}, true,
		},
		"by sha512": {
			"trusted_root.json", "/targets/" + name512 + ".trusted_root.json",
			metadata.Hashes{"sha512": in512[:]}, true,
		},
		"in a folder": {
			"a b/c?d", "/targets/a%20b/" + name256 + ".c%3Fd", metadata.Hashes{"sha256": in256[:]}, true,
		},
		"not consistent": {
			"a/b", "/targets/a/b", metadata.Hashes{"sha256": in256[:], "sha512": in512[:]}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.root.Signed.ConsistentSnapshot = tt.consistent
			r.targets[metadata.TARGETS].Signed.Targets[tt.path] = &metadata.TargetFiles{
				Length: int64(len(content)), Hashes: tt.hashes,
			}
			r.publish(metadata.ROOT, metadata.TARGETS)
			for _, role := range []string{"snapshot", "targets"} {
				r.put("/"+role+".json", r.served("/2."+role+".json"))
			}
			r.put(tt.file, content)
			c := r.client()
			got, err := c.Target(t.Context(), refreshed(t, c, nil), tt.path)
			if err != nil || string(got) != string(content) {
				t.Errorf("got %q and %v, want %q", got, err, content)
			}
		})
	}
}

func TestThreatTUFTargetOfAnotherContent(t *testing.T) {
	content := []byte("0123456789")
	sum := sha256.Sum256(content)
	path := "/targets/" + hex.EncodeToString(sum[:]) + ".root"
	for name, tt := range map[string]struct {
		served []byte
		fault  faultproxy.Fault
		length int64
		reason string
	}{
		"of another hash": {[]byte("9876543210"), faultproxy.Fault{}, 10, v1alpha1.ReasonMetadataInvalid},
		"shorter":         {[]byte("01234"), faultproxy.Fault{}, 10, v1alpha1.ReasonMetadataInvalid},
		"longer": {
			append(slices.Clone(content), '0'), faultproxy.Fault{}, 10, v1alpha1.ReasonTooLarge,
		},
		"a wrong length":   {content, faultproxy.Fault{}, 11, v1alpha1.ReasonMetadataInvalid},
		"a length of 0":    {content, faultproxy.Fault{}, 0, v1alpha1.ReasonTooLarge},
		"beyond the bound": {content, faultproxy.Fault{}, 5 << 20, v1alpha1.ReasonTooLarge},
		"missing": {
			nil, faultproxy.Fault{Match: ends(".root"), Status: 404}, 10, v1alpha1.ReasonMetadataMissing,
		},
		"forbidden": {
			content, faultproxy.Fault{Match: ends(".root"), Status: 403}, 10, v1alpha1.ReasonUnauthorized,
		},
		"cut": {
			content, faultproxy.Fault{Match: ends(".root"), Cut: 3}, 10, v1alpha1.ReasonUnreachable,
		},
		"elsewhere by a redirect": {
			content, faultproxy.Fault{Match: ends(".root"), Status: 302}, 10, v1alpha1.ReasonUnexpectedAnswer,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.targets[metadata.TARGETS].Signed.Targets["root"] = &metadata.TargetFiles{
				Length: tt.length, Hashes: metadata.Hashes{"sha256": sum[:]},
			}
			r.publish(metadata.TARGETS)
			r.put(path, tt.served)
			c := r.client()
			s := refreshed(t, c, nil)
			r.proxy.Set(tt.fault)
			got, err := c.Target(t.Context(), s, "root")
			wantFault(t, err, tt.reason)
			if got != nil || errors.Is(err, trust.ErrNotFound) {
				t.Errorf("got %q and %v, want a fault alone", got, err)
			}
		})
	}
}

func TestNoSuchTarget(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.sign("ci", "app", []byte("x"))
	r.publish(metadata.TARGETS, "ci")
	c := r.client()
	s := loaded(t, c, nil, "app")
	r.proxy.Reset()
	for _, path := range []string{"root", "app"} {
		if _, err := c.Target(t.Context(), s, path); !errors.Is(err, trust.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound: targets.json lists no such target", path, err)
		}
	}
	for _, path := range []string{"../root", "/root", "a/../../root", `a\b`, "a//b", "", strings.Repeat("a", 2000)} {
		_, err := c.Target(t.Context(), s, path)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
	}
	if got := r.requests(); len(got) != 0 {
		t.Errorf("got requests %q, want none", got)
	}
}

func TestTargetBound(t *testing.T) {
	r := newRepository(t)
	r.sign(metadata.TARGETS, "root", []byte("0123456789"))
	r.publish(metadata.TARGETS)
	c := r.client(func(c *tufrepo.Config) { c.MaxTarget = 9 })
	_, err := c.Target(t.Context(), refreshed(t, c, nil), "root")
	wantFault(t, err, v1alpha1.ReasonTooLarge, "10 bytes, more than the 9")
}
