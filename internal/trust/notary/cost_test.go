package notary

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

// repeated returns comma-separated elements of about size bytes in total.
func repeated(size int, element func(i int) string) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(element(i))
	}
	return b.String()
}

// bulky returns parts of a signed file whose decoding costs much memory for their size.
func bulky(size int) map[string]json.RawMessage {
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	return map[string]json.RawMessage{
		"objects of one member": json.RawMessage("[" + repeated(size, func(int) string { return `{"":0}` }) + "]"),
		"zeros":                 json.RawMessage("[" + repeated(size, func(int) string { return "0" }) + "]"),
		"members in reverse": json.RawMessage(
			"{" + repeated(size, func(i int) string { return fmt.Sprintf(`"%06x":0`, 0xffffff-i) }) + "}"),
		"reverse, level by level": json.RawMessage(strings.Repeat(`{"b":`, 50) + "{" +
			repeated(size, func(i int) string { return fmt.Sprintf(`"%06x":0`, 0xffffff-i) }) + "}" +
			strings.Repeat(`,"a":0}`, 50)),
		"names with escapes": json.RawMessage(
			"{" + repeated(size, func(i int) string { return fmt.Sprintf(`"\u0022\\%06x":0`, 0xffffff-i) }) + "}"),
		"one long string": json.RawMessage(`"` + strings.Repeat(`\u00e9\n\"`, size/10) + `"`),
		"targets": json.RawMessage("{" + repeated(size, func(i int) string {
			return fmt.Sprintf(`"%x":{"hashes":{"sha256":"%s"},"length":1}`, i,
				base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%032d", i)))
		}) + "}"),
		"delegations": json.RawMessage(`{"keys":{},"roles":[` + repeated(size, func(i int) string {
			return fmt.Sprintf(`{"name":"targets/a/%d","keyids":[],"threshold":1,"paths":[%s]}`, i,
				repeated(1000, func(int) string { return `""` }))
		}) + "]}"),
		"keys": json.RawMessage(`{"keys":{` + repeated(size, func(i int) string {
			return fmt.Sprintf(`"%064x":{"keytype":"ed25519","keyval":{"private":null,"public":"%s"}}`, i, hash)
		}) + `},"roles":[]}`),
	}
}

// Whatever a signer writes into the file of a delegation: verification allocates no more memory,
// garbage included, than its cost in the budget. A refused file is a fault of the repository.
func TestThreatVerifyingCostsNoMoreThanIsCharged(t *testing.T) {
	const size = 256 << 10
	for name, text := range bulky(size) {
		for _, field := range []string{"ignored", "targets", "delegations"} {
			t.Run(name+" as "+field, func(t *testing.T) {
				v := newVirtual(t)
				costs(t, v, v.config(), "targets/qa", field, text)
			})
		}
	}
	// Rejected targets are stored too, because denials report them.
	for name, file := range map[string]string{
		"targets": "targets", "releases": "targets/releases", "a key of two": "targets/qa",
		"outside of the paths": "targets/ci",
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			v.delegate("targets/releases", entry("one"))
			v.roles["targets/ci"].paths = []string{"v1"}
			v.bump("targets")
			cfg := v.config()
			cfg.Roles = []Role{{Name: "qa", Threshold: 2}}
			costs(t, v, cfg, file, "targets", bulky(size)["targets"])
		})
	}
}

// costs replaces a field of one file, verifies the repository, and compares the allocated memory
// with the cost.
func costs(t *testing.T, v *virtual, cfg Config, file, field string, text json.RawMessage) {
	t.Helper()
	v.roles[file].extra = map[string]json.RawMessage{field: text}
	v.bump(file, "snapshot", "timestamp")
	v.publish()
	r := v.root(cfg)
	files := files{roots: [][]byte{v.current["root"]}, others: map[string][]byte{}}
	for role, raw := range v.current {
		if role != "root" {
			files.others[role] = raw
		}
	}
	saved := &evidence{repository: testGUN, raw: r.pack(files)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := r.recheck(saved)
	runtime.ReadMemStats(&after)
	took, charged := after.TotalAlloc-before.TotalAlloc, uint64(cost(saved.raw.size()))
	t.Logf("%.1f bytes per byte, error %v", float64(took)/float64(saved.raw.size()), err)
	if took > charged {
		t.Errorf("got %d bytes allocated for files of %d, want at most the cost of %d", took, saved.raw.size(), charged)
	}
	if err != nil && trust.AsFault(err, "").Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("got %v, want none or TooLarge", err)
	}
}

func TestThreatTooManyValues(t *testing.T) {
	values := func(n int) func(v *virtual) {
		return func(v *virtual) {
			v.roles["targets/qa"].extra = map[string]json.RawMessage{
				"x": json.RawMessage("[" + strings.Repeat("0,", n) + "0]"),
			}
		}
	}
	faultWith(t, values(canonicaljson.MaxValues), v1alpha1.ReasonTooLarge, "targets/qa.json", "JSON values")
	wantRoles(t, signedWith(t, values(canonicaljson.MaxValues-1000), nil), "ci one", "qa one")
}

// A repository whose cost exceeds the budget is a fault of that repository alone.
func TestThreatRepositoryBeyondTheBudget(t *testing.T) {
	v := newVirtual(t)
	cfg := v.config()
	previous := mustFetch(t, v.root(cfg), nil)
	cfg.Budget = budget.New(cost(12_000))
	r := v.root(cfg)
	if _, err := r.Recheck(of(testGUN), previous); err != nil {
		t.Errorf("got %v for a small repository, want no error", err)
	}
	v.roles["targets/qa"].extra = map[string]json.RawMessage{
		"x": json.RawMessage(`"` + strings.Repeat("a", 40_000) + `"`),
	}
	v.bump("targets/qa", "snapshot", "timestamp")
	v.publish()
	_, err := r.Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonTooLarge, testGUN, "memory")
}

// The largest repository that the bounds allow is verified within the default budget.
func TestLargestRepositoryFitsTheBudget(t *testing.T) {
	if most := cost(maxUnpackedSize); most > budget.Default {
		t.Errorf("got a cost of %d bytes, want at most the default budget of %d", most, budget.Default)
	}
}

// bulkyRoots rotates the root so often, with such large files, that the chain exceeds its bound.
func bulkyRoots(v *virtual) {
	v.roles["root"].extra = map[string]json.RawMessage{
		"x": json.RawMessage(`"` + strings.Repeat("a", maxChainSize/3) + `"`),
	}
	v.rotateRoot(20)
}

func TestThreatLongChainOfRoots(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	bulkyRoots(v)
	for name, base := range map[string]trust.Evidence{"first fetch": nil, "refresh": previous} {
		v.requests()
		_, err := r.Fetch(t.Context(), of(testGUN), base)
		wantFault(t, err, v1alpha1.ReasonTooLarge, "root.json")
		if requests := only(v.requests(), "root.json"); len(requests) > 4 {
			t.Errorf("%s: got requests for %d roots: %s", name, len(requests), requests)
		}
	}
}

// A root that does not follow from the one before ends the chain: no other root is requested.
func TestThreatRootsAreVerifiedStepByStep(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	v.rotateRoot(6)
	v.files["7.root.json"] = v.files["6.root.json"]
	for name, tt := range map[string]struct {
		previous trust.Evidence
		want     []string
	}{
		"first fetch": {nil, []string{"10.root.json", "7.root.json", "8.root.json", "9.root.json", "root.json"}},
		"refresh":     {previous, []string{"6.root.json", "7.root.json", "root.json"}},
	} {
		v.requests()
		if _, err := r.Fetch(t.Context(), of(testGUN), tt.previous); err == nil {
			t.Errorf("%s: got the newest root accepted, want a fault", name)
		}
		if diff := cmp.Diff(tt.want, slices.Compact(only(v.requests(), "root.json"))); diff != "" {
			t.Errorf("%s: requested roots (-want +got):\n%s", name, diff)
		}
	}
}

func TestThreatDelegationsInTheThousands(t *testing.T) {
	listing := func(delegations, paths int) func(v *virtual) {
		return func(v *virtual) {
			all := []m{}
			for i := range delegations {
				all = append(all, m{
					"name": fmt.Sprintf("targets/r%d", i), "keyids": []string{}, "threshold": 1,
					"paths": slices.Repeat([]string{"a"}, paths),
				})
			}
			v.roles["targets"].mutate = func(signed m) { signed["delegations"] = m{"keys": m{}, "roles": all} }
		}
	}
	faultWith(t, listing(maxDelegations+1, 1), v1alpha1.ReasonTooLarge, "targets.json", "delegations")
	faultWith(t, listing(1, maxPaths+1), v1alpha1.ReasonTooLarge, "targets.json", "paths")
	wantRoles(t, signedWith(t, listing(maxDelegations, maxPaths), nil))
}

// Evidence of a stored record that does not verify has a size too.
func TestUnverifiedRecordHasASize(t *testing.T) {
	v := newVirtual(t)
	data := mustPack(t, v.root(v.config()), mustFetch(t, v.root(v.config()), nil))
	cfg := v.config()
	cfg.Clock = func() time.Time { return testNow().AddDate(20, 0, 0) }
	ev, err := v.root(cfg).unpackOne(testGUN, data, nil)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired)
	if sized, ok := ev.(trust.Sized); !ok || sized.Size() < int64(len(data)) {
		t.Errorf("got %T without a size, want at least %d bytes", ev, len(data))
	}
}

// bulkyCertificate returns a key with a certificate that takes much memory for its size.
func bulkyCertificate(t *testing.T, name string, usages int) *testKey {
	t.Helper()
	return newKey(t, "ecdsa-x509", name, func(c *x509.Certificate) {
		for range usages {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, []int{1, 2, 3})
		}
	})
}

func TestThreatBulkyCertificates(t *testing.T) {
	v := newVirtual(t)
	for _, usages := range []int{1500, 60_000} {
		root := v.roles["root"]
		root.keys = []*testKey{bulkyCertificate(t, testGUN, usages)}
		for range maxKeys - 1 {
			root.keys = append(root.keys, bulkyCertificate(t, testGUN, min(usages, 1500)))
		}
		root.signers = root.keys[:1]
		v.bump("root")
		v.publish()
		raw := v.current["root"]
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeRoot(raw)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(cost(len(raw))) {
			t.Errorf("%d usages: got %d bytes allocated for a root of %d, want at most the cost of %d", usages, took,
				len(raw),
				cost(len(raw)))
		}
		if trust.AsFault(err, "").Reason != v1alpha1.ReasonTooLarge {
			t.Errorf("%d usages: got %v, want TooLarge", usages, err)
		}
	}
	k := bulkyCertificate(t, testGUN, 60_000)
	o := m{"keytype": k.keyType, "keyval": m{"private": nil, "public": base64.StdEncoding.EncodeToString(k.public)}}
	if key, err := decodeKey(canonicaljson.Value(canonicalJSON(t, o))); key != nil || err != nil {
		t.Errorf("a key of %d bytes: got %v, %v, want none", len(k.public), key, err)
	}
}
