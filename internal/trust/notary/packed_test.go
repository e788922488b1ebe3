package notary

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

func mustPack(t testing.TB, r *Root, ev trust.Evidence) []byte {
	t.Helper()
	data, err := r.packOne(ev)
	if err != nil || len(data) == 0 {
		t.Fatalf("Pack: got %d bytes, %v", len(data), err)
	}
	return data
}

func mustUnpack(t testing.TB, r *Root, data []byte, previous trust.Evidence) trust.Evidence {
	t.Helper()
	ev, err := r.unpackOne(testGUN, data, previous)
	if err != nil {
		t.Fatalf("Unpack: %v", err)
	}
	return ev
}

// After a restart, stored evidence has the same statements without a request, and a refresh takes
// one request.
func TestPackedIsReadBack(t *testing.T) {
	v := newVirtual(t)
	first := v.root(v.config())
	fetched := mustFetch(t, first, nil)
	data := mustPack(t, first, fetched)

	r := v.root(v.config())
	v.requests() // drop the requests so far
	ev := mustUnpack(t, r, data, nil)
	if got := v.requests(); len(got) > 0 {
		t.Errorf("Unpack: got requests for %q, want none", got)
	}
	if diff := cmp.Diff(fetched.Statements("v1", ""), ev.Statements("v1", "")); diff != "" {
		t.Errorf("statements (-fetched +read back):\n%s", diff)
	}
	at, file := fetched.Expiry()
	if again, fileAgain := ev.Expiry(); !again.Equal(at) || fileAgain != file {
		t.Errorf("got expiry %v of %s, want %v of %s", again, fileAgain, at, file)
	}
	if again := mustPack(t, r, ev); !bytes.Equal(again, data) {
		t.Error("got another record of evidence that was read from one: it would be written again and again")
	}
	if next := mustFetch(t, r, ev); next != ev {
		t.Error("got other evidence of a refresh that found nothing new")
	}
	if got := v.requests(); len(got) != 1 {
		t.Errorf("got requests for %q, want the timestamp alone", got)
	}
	if same := mustUnpack(t, r, data, ev); same != ev {
		t.Error("got other evidence of a record that adds nothing")
	}
	for name, previous := range map[string]trust.Evidence{"nothing": nil, "no signatures": trust.Unsigned{}} {
		if data, err := r.packOne(previous); data != nil || err != nil {
			t.Errorf("%s: got record %q, %v, want none", name, data, err)
		}
	}
}

// A stored record counts only if it verifies from the root as it is pinned now.
func TestThreatWrittenDownIsVerifiedAgain(t *testing.T) {
	tests := map[string]struct {
		edit   func(v *virtual, c *Config)
		reason string
	}{
		"expired": {
			func(_ *virtual, c *Config) { c.Clock = func() time.Time { return testNow().AddDate(0, 0, 15) } },
			v1alpha1.ReasonMetadataExpired,
		},
		"a key revoked": {func(v *virtual, c *Config) {
			c.RevokedKeys = []string{v.roles["snapshot"].keys[0].canonical}
		}, v1alpha1.ReasonKeyRevoked},
		"another root pinned": {
			func(_ *virtual, c *Config) { c.RootKeys, c.RootKeyIDs = nil, []string{strings.Repeat("ab", 32)} },
			v1alpha1.ReasonRootNotPinned,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			r := v.root(v.config())
			data := mustPack(t, r, mustFetch(t, r, nil))
			cfg := v.config()
			test.edit(v, &cfg)
			ev, err := v.root(cfg).unpackOne(testGUN, data, nil)
			wantFault(t, err, test.reason)
			proves(t, ev)
		})
	}
	t.Run("a key revoked that signs for a role", func(t *testing.T) {
		v := newVirtual(t)
		r := v.root(v.config())
		data := mustPack(t, r, mustFetch(t, r, nil))
		cfg := v.config()
		cfg.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical}
		wantRoles(t, signedBy(mustUnpack(t, v.root(cfg), data, nil), "v1"), "ci one")
	})
	t.Run("files forged", func(t *testing.T) {
		v, forged := newVirtual(t), newVirtual(t)
		r := forged.root(forged.config())
		data := mustPack(t, r, mustFetch(t, r, nil))
		ev, err := v.root(v.config()).unpackOne(testGUN, data, nil)
		wantFault(t, err, v1alpha1.ReasonRootNotPinned)
		proves(t, ev)
	})
	t.Run("of another repository", func(t *testing.T) {
		v := newVirtual(t)
		r := v.root(v.config())
		data := mustPack(t, r, mustFetch(t, r, nil))
		ev, err := r.unpackOne(testGUN+"-other", data, nil)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "it is a record of")
		proves(t, ev)
		renamed := bytes.Replace(data, []byte(testGUN), []byte(testGUN+"-other"), 1)
		ev, err = r.unpackOne(testGUN+"-other", renamed, nil)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
		proves(t, ev)
	})
}

// proves fails if evidence that came with a fault has statements.
func proves(t *testing.T, ev trust.Evidence) {
	t.Helper()
	if ev != nil && (len(ev.Statements("v1", "")) > 0 || len(ev.Statements("", digestOf("one"))) > 0) {
		t.Errorf("got statements %v beside a fault, want none", ev.Statements("v1", ""))
	}
}

// Versions that were seen before a restart bound the server after it, whether or not the record
// verifies.
func TestThreatRollbackAcrossARestart(t *testing.T) {
	later := func(c *Config) { c.Clock = func() time.Time { return testNow().AddDate(0, 0, 15) } }
	for name, edit := range map[string]func(*Config){"current": func(*Config) {}, "expired": later} {
		for _, role := range []string{"timestamp", "snapshot", "targets", "targets/qa"} {
			t.Run(name+" "+role, func(t *testing.T) {
				v := newVirtual(t)
				r := v.root(v.config())
				data := mustPack(t, r, mustFetch(t, r, nil))

				cfg := v.config()
				edit(&cfg)
				r = v.root(cfg)
				previous, _ := r.unpackOne(testGUN, data, nil)
				if previous == nil {
					t.Fatal("got an older version accepted, want the seen versions kept")
				}
				v.roles["timestamp"].expires = testNow().AddDate(0, 1, 0)
				v.bump("timestamp", "snapshot", "targets", "targets/qa")
				v.roles[role].version -= 2
				v.publish()
				// A first fetch would accept it.
				wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
				_, err := r.Fetch(t.Context(), of(testGUN), previous)
				wantFault(t, err, v1alpha1.ReasonRollback, role+".json")
			})
		}
	}
}

// The record of another replica raises the versions of a replica, and never lowers them.
func TestThreatRollbackOnAnotherReplica(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	old := mustFetch(t, r, nil)
	oldData := mustPack(t, r, old)
	v.roles["targets/qa"].targets = m{"v1": entry("two")}
	v.bump("timestamp", "snapshot", "targets/qa")
	v.publish()
	newer := mustFetch(t, r, old)
	newerData := mustPack(t, r, newer)

	other := v.root(v.config())
	wantRoles(t, signedBy(mustUnpack(t, other, newerData, mustUnpack(t, other, oldData, nil)), "v1"), "ci one",
		"qa two")
	previous := mustUnpack(t, other, newerData, nil)
	if got := mustUnpack(t, other, oldData, previous); got != previous {
		t.Error("got other evidence of an older record")
	}

	// Each replica has seen one half of the versions. Neither half may be lost.
	v.bump("timestamp", "snapshot")
	v.roles["targets/qa"].version--
	v.roles["targets/qa"].targets = m{"v1": entry("one")}
	v.publish()
	forked := mustFetch(t, other, mustUnpack(t, other, oldData, nil)) // a later snapshot with the older file of qa
	wantRoles(t, signedBy(forked, "v1"), "ci one", "qa one")
	both, err := other.unpackOne(testGUN, newerData, forked)
	wantFault(t, err, v1alpha1.ReasonRollback)
	if both == nil {
		t.Fatal("got an older version accepted that another replica has seen replaced")
	}
	proves(t, both)
	_, err = other.Fetch(t.Context(), of(testGUN), both)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
	v.bump("timestamp", "snapshot")
	v.roles["targets/qa"].version += 2
	v.publish()
	wantRoles(t, signedBy(mustFetch(t, other, both), "v1"), "ci one", "qa one")
}

// An attacker who writes records and controls the signing server cannot make a replica accept older
// versions than it has seen.
func TestThreatForgedRecordLowersNothing(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	old := mustFetch(t, r, nil)
	v.bump("timestamp", "snapshot", "targets/qa")
	v.publish()
	previous := mustFetch(t, r, old)
	forge := func(edit func(seen map[string]packedVersion)) []byte {
		line, files, _ := bytes.Cut(mustPack(t, r, old), []byte("\n"))
		var h packedHeader
		if err := json.Unmarshal(line, &h); err != nil {
			t.Fatal(err)
		}
		edit(h.Seen)
		line, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(line, []byte("\n"), files)
	}
	other := strings.Repeat("ab", 32)
	v.roles["targets/qa"].version--
	v.bump("timestamp", "snapshot")
	v.publish()
	for name, edit := range map[string]func(map[string]packedVersion){
		"other keys under a later targets file": func(seen map[string]packedVersion) {
			for name, f := range seen {
				f.Version, f.Keys = 0, []string{other}
				if name == targetsRole {
					f.Version = math.MaxInt64
				}
				if name != rootRole {
					seen[name] = f
				}
			}
		},
		"other keys under a later root": func(seen map[string]packedVersion) {
			for name, f := range seen {
				f.Keys = []string{other}
				f.Version = 0
				if name == rootRole {
					f.Version = math.MaxInt64
				}
				seen[name] = f
			}
		},
		"no keys":      func(seen map[string]packedVersion) { seen["targets/qa"] = packedVersion{Digest: other} },
		"nothing seen": func(seen map[string]packedVersion) { clear(seen) },
		"another file ": func(seen map[string]packedVersion) {
			f := seen["targets/qa"]
			f.Digest = other
			seen["targets/qa"] = f
		},
	} {
		t.Run(name, func(t *testing.T) {
			joined, err := r.unpackOne(testGUN, forge(edit), previous)
			if joined == nil {
				joined = previous
			} else if err != nil {
				proves(t, joined)
			}
			_, err = r.Fetch(t.Context(), of(testGUN), joined)
			wantFault(t, err, v1alpha1.ReasonRollback)
		})
	}
	t.Run("names without bound", func(t *testing.T) {
		ev, err := r.unpackOne(testGUN, forge(func(seen map[string]packedVersion) {
			seen["targets/"+strings.Repeat("a", 1<<20)] = packedVersion{Digest: other}
		}), nil)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "is not the name of a delegation")
		proves(t, ev)
	})
}

// If all keys of a role were replaced, its versions start again, also on replicas that have not
// seen the replacement.
func TestReplacedKeysReachAnotherReplica(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	v.roles["timestamp"].version = math.MaxInt64
	v.publish()
	stolen := mustFetch(t, r, nil)
	data := mustPack(t, r, stolen)
	v.roles["timestamp"].keys = []*testKey{newKey(t, "ecdsa", "")}
	v.roles["timestamp"].version = 1
	v.bump("root", "snapshot")
	v.publish()
	mended := mustPack(t, r, mustFetch(t, r, stolen))
	other := v.root(v.config())
	got := mustUnpack(t, other, mended, mustUnpack(t, other, data, nil))
	wantRoles(t, signedBy(got, "v1"), "ci one", "qa one")
	if same := mustUnpack(t, other, data, got); same != got {
		t.Error("got the seen versions of the replaced keys back")
	}
	v.bump("timestamp", "snapshot")
	v.publish()
	mustFetch(t, other, got)
}

// A removed delegation that the leader has seen is no rollback on a replica that still has the
// delegation.
func TestWithdrawnDelegationReachesAnotherReplica(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	before := mustFetch(t, r, nil)
	data := mustPack(t, r, before)
	v.unlist["targets/qa"] = true
	v.bump("targets", "timestamp", "snapshot")
	v.publish()
	withdrawn := mustFetch(t, r, before)
	other := v.root(v.config())
	got := mustUnpack(t, other, mustPack(t, r, withdrawn), mustUnpack(t, other, data, nil))
	wantRoles(t, signedBy(got, "v1"), "ci one")
	if same := mustUnpack(t, other, data, got); same != got {
		t.Error("got other evidence of the older record")
	}
	v.bump("timestamp", "snapshot")
	v.publish()
	wantRoles(t, signedBy(mustFetch(t, other, got), "v1"), "ci one")
}

// A damaged record is a fault, and does not change the earlier evidence.
func TestThreatDamagedPackIsAFault(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	older := mustPack(t, r, mustFetch(t, r, nil))
	v.bump("timestamp", "snapshot")
	v.publish()
	previous := mustFetch(t, r, mustUnpack(t, r, older, nil))
	data := mustPack(t, r, previous)
	line := bytes.IndexByte(data, '\n')
	replaced := func(from, to string) []byte {
		if !bytes.Contains(data, []byte(from)) {
			t.Fatalf("got a record without %q", from)
		}
		return bytes.Replace(data, []byte(from), []byte(to), 1)
	}
	damaged := map[string][]byte{
		"empty": nil, "no header": data[line+1:], "cut in the header": data[:line/2],
		"cut in the files": data[:line+20], "no files": data[:line+1],
		"another version": replaced("notary 1", "notary 2"), "negative size": replaced(`"sizes":[`, `"sizes":[-1,`),
		"no roots":      []byte(`{"format":"countersign notary 1","repository":"` + testGUN + "\"}\n"),
		"huge":          replaced(`"sizes":[`, `"sizes":[99999999999,`),
		"half a digest": replaced(`"digest":"`, `"digest":"00`), "text": []byte("x\n"), "null": []byte("null\n"),
		"more files":                 slices.Concat(data, compressed(t, "x")),
		"padded":                     slices.Concat(data, bytes.Repeat(compressed(t, ""), 1000)),
		"followed by something else": append(bytes.Clone(data), 0),
	}
	for name, spoilt := range damaged {
		t.Run(name, func(t *testing.T) {
			ev, err := r.unpackOne(testGUN, spoilt, nil)
			wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
			proves(t, ev)
			if ev, err := r.unpackOne(testGUN, spoilt, previous); ev != nil && ev != previous {
				t.Errorf("got %v, %v, want a fault and no evidence", ev, err)
			}
		})
	}
}

// A header that would take fifty times its size in memory is not decoded.
func TestThreatHeaderOfManyValues(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	data := mustPack(t, r, mustFetch(t, r, nil))
	bulky := bytes.Replace(data, []byte("{"), []byte(`{"x":[`+strings.Repeat(`{},`, maxHeaderValues)+`{}],`), 1)
	_, err := r.unpackOne(testGUN, bulky, nil)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "values")
}

func compressed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzUnpack(f *testing.F) {
	v := newVirtual(f)
	r := v.root(v.config())
	first := mustFetch(f, r, nil)
	data := mustPack(f, r, first)
	f.Add(data)
	f.Add([]byte("{}\n"))
	v.bump("timestamp", "snapshot")
	v.publish()
	previous := mustFetch(f, r, first)
	f.Fuzz(func(t *testing.T, data []byte) {
		ev, err := r.unpackOne(testGUN, data, nil)
		if err != nil {
			proves(t, ev)
		} else if diff := cmp.Diff([]string{"ci one", "qa one"}, signedBy(ev, "v1")); diff != "" {
			t.Errorf("accepted, with statements (-want +got):\n%s", diff)
		}
		joined, err := r.unpackOne(testGUN, data, previous)
		if joined == nil {
			return
		}
		for name, f := range previous.(*evidence).seen {
			if got := joined.(*evidence).seen[name]; err == nil && got.version < f.version {
				t.Errorf("%s: got version %d lowered to %d", name, f.version, got.version)
			}
		}
	})
}
