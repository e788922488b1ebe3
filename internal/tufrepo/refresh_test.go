package tufrepo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

func TestRefreshCostsTwoRequestsWhereNothingChanged(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	held := refreshed(t, c, nil)
	if got, want := held.Versions(), (tufrepo.Versions{Root: 1, Timestamp: 1, Snapshot: 1, Targets: 1}); got != want {
		t.Errorf("got versions %+v, want %+v", got, want)
	}
	if until, file := held.Expiry(); !until.Equal(today.AddDate(1, 0, 0)) || file != "root.json" {
		t.Errorf("got expiry %s of %s, want that of root.json", until, file)
	}
	r.proxy.Reset()
	if again := refreshed(t, c, held); again != held {
		t.Error("got another State, want the held one, since nothing has changed")
	}
	if got, want := r.requests(), []string{"/2.root.json", "/timestamp.json"}; !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
}

func TestRefreshFetchesWhatChanged(t *testing.T) {
	for _, hashes := range []bool{false, true} {
		r := newRepository(t)
		r.hashes = hashes
		c := r.client()
		held := refreshed(t, c, nil)
		r.publish()
		r.proxy.Reset()
		next := refreshed(t, c, held)
		if got, want := next.Versions(), (tufrepo.Versions{
			Root: 1, Timestamp: 2, Snapshot: 2, Targets: 1,
		}); got != want {
			t.Errorf("hashes %t: got versions %+v, want %+v", hashes, got, want)
		}
		if got, want := r.requests(), []string{
			"/2.root.json", "/2.snapshot.json", "/timestamp.json",
		}; !slices.Equal(got,
			want) {
			t.Errorf("hashes %t: got requests %q, want %q: targets.json has not changed", hashes, got, want)
		}
	}
}

func TestRepositoryWithoutConsistentSnapshots(t *testing.T) {
	r := newRepository(t)
	r.root.Signed.ConsistentSnapshot = false
	r.publish(metadata.ROOT, metadata.TARGETS)
	for _, role := range []string{"snapshot", "targets"} {
		r.put("/"+role+".json", r.served("/2."+role+".json"))
	}
	if got := refreshed(t, r.client(), nil).Versions(); got.Snapshot != 2 || got.Targets != 2 {
		t.Errorf("got versions %+v, want 2 of snapshot and targets", got)
	}
}

func TestRootRotation(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(r *repository)
		reason string // empty: accepted
		words  []string
	}{
		"signed by both": {change: func(r *repository) { r.rotate(metadata.ROOT) }},
		"the same keys":  {change: func(*repository) {}},
		"an expired one before the newest": {change: func(r *repository) {
			r.root.Signed.Expires = today.AddDate(0, 0, -1)
			r.publish(metadata.ROOT)
			r.root.Signed.Expires = today.AddDate(1, 0, 0)
		}},
		"the newest has expired": {
			change: func(r *repository) { r.root.Signed.Expires = today },
			reason: v1alpha1.ReasonMetadataExpired, words: []string{"root.json: expired at 2026-03-01"},
		},
		"not signed by the old key": {
			change: func(r *repository) {
				r.rotate(metadata.ROOT)
				r.keys[metadata.ROOT] = r.keys[metadata.ROOT][:1]
			},
			reason: v1alpha1.ReasonRootNotPinned, words: []string{"2.root.json", "version 1"},
		},
		"not signed by the new key": {
			change: func(r *repository) {
				r.rotate(metadata.ROOT)
				r.keys[metadata.ROOT] = r.keys[metadata.ROOT][1:]
			},
			reason: v1alpha1.ReasonMetadataInvalid, words: []string{"2.root.json", "its own root keys"},
		},
		"below its new threshold": {
			change: func(r *repository) {
				r.root.Signed.Roles[metadata.ROOT].Threshold = 2
			},
			reason: v1alpha1.ReasonMetadataInvalid, words: []string{"by 1 of the role's keys, and needs 2"},
		},
		"a version is left out": {
			change: func(r *repository) {
				r.mutate[metadata.ROOT] = func(signed map[string]any) { signed["version"] = 3 }
			},
			reason: v1alpha1.ReasonMetadataInvalid, words: []string{"it has version 3, and 2 comes next"},
		},
		"a threshold of 0": {
			change: func(r *repository) { r.root.Signed.Roles[metadata.ROOT].Threshold = 0 },
			reason: v1alpha1.ReasonMetadataInvalid, words: []string{"threshold of 0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			c := r.client()
			held := refreshed(t, c, nil)
			tt.change(r)
			r.publish(metadata.ROOT)
			next, err := c.Refresh(t.Context(), held)
			if tt.reason != "" {
				wantFault(t, err, tt.reason, append(tt.words, "https://tuf.example.com")...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := next.Versions().Root; got != r.root.Signed.Version {
				t.Errorf("got root %d, want %d", got, r.root.Signed.Version)
			}
		})
	}
}

func TestRootsAreWalkedOneByOne(t *testing.T) {
	r := newRepository(t)
	for range 5 {
		r.rotate(metadata.ROOT)
		r.keys[metadata.ROOT] = r.keys[metadata.ROOT][:2]
		r.publish(metadata.ROOT)
	}
	if got := refreshed(t, r.client(), nil).Versions().Root; got != 6 {
		t.Errorf("got root %d, want 6", got)
	}
}

func TestThreatEndlessChainOfTUFRoots(t *testing.T) {
	r := newRepository(t)
	for range 65 {
		r.root.Signed.Version++
		r.write(metadata.ROOT)
	}
	_, err := r.client().Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonTooLarge, "more than 64 roots", "pin a newer root")
}

// A file server answers 403 or 404 for a root that does not exist. Anything else is no end of the
// walk.
func TestEndOfTheRoots(t *testing.T) {
	for status, reason := range map[int]string{
		http.StatusNotFound: "", http.StatusForbidden: "", http.StatusGone: "",
		http.StatusInternalServerError: v1alpha1.ReasonServerError,
		http.StatusTooManyRequests:     v1alpha1.ReasonServerError,
		http.StatusBadRequest:          v1alpha1.ReasonServerError,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			r := newRepository(t)
			r.proxy.Set(faultproxy.Fault{Match: ends("/2.root.json"), Status: status})
			_, err := r.client().Refresh(t.Context(), nil)
			if reason != "" {
				wantFault(t, err, reason)
			} else if err != nil {
				t.Errorf("got %v, want status %d to end the walk", err, status)
			}
		})
	}
}

func ends(suffix string) func(string) bool {
	return func(path string) bool { return strings.HasSuffix(path, suffix) }
}

func TestThreatTUFRollback(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(r *repository)
		words  []string
	}{
		"timestamp": {
			change: func(r *repository) { r.timestamp.Signed.Version -= 2 },
			words:  []string{"timestamp.json: it has version 2, and version 3 was seen before"},
		},
		"snapshot in the timestamp": {
			change: func(r *repository) { r.snapshot.Signed.Version -= 2 },
			words:  []string{"timestamp.json: its entry snapshot.json has version 2, and version 3 was seen"},
		},
		"targets": {
			change: func(r *repository) {
				r.targets[metadata.TARGETS].Signed.Version = 1
				r.write(metadata.TARGETS)
			},
			words: []string{`snapshot.json: its entry "targets.json" has version 1, and version 2 was seen before`},
		},
		"a delegated role": {
			change: func(r *repository) {
				r.targets["qa"].Signed.Version = 1
				r.write("qa")
			},
			words: []string{`snapshot.json: its entry "qa.json" has version 1, and version 2 was seen before`},
		},
		"a delegated role that is no longer listed": {
			change: func(r *repository) { delete(r.snapshot.Signed.Meta, "qa.json") },
			words:  []string{`no longer lists "qa.json"`},
		},
		"targets with the same version": {
			change: func(r *repository) {
				r.sign(metadata.TARGETS, "x", []byte("other"))
				r.write(metadata.TARGETS)
			},
			words: []string{"targets.json: version 2 was seen before with other content"},
		},
		"snapshot with the same version": {
			change: func(r *repository) {
				r.snapshot.Signed.Version--
				r.snapshot.Signed.Meta["other.json"] = metadata.MetaFile(1)
			},
			words: []string{"snapshot.json: version 3 was seen before with other content"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.hashes = true
			r.delegate(metadata.TARGETS, "qa", "*")
			r.publish(metadata.TARGETS, "qa")
			r.publish("qa")
			c := r.client()
			held := loaded(t, c, nil, "x")
			tt.change(r)
			r.publish()
			_, err := c.Refresh(t.Context(), held)
			wantFault(t, err, v1alpha1.ReasonRollback, tt.words...)
			if _, err := r.client().Refresh(t.Context(), nil); err != nil {
				t.Errorf("without a held State: got %v, want the same files accepted: the case is about rollback alone",
					err)
			}
		})
	}
}

func TestThreatTUFRollbackOfADelegatedFile(t *testing.T) {
	r := newRepository(t)
	r.hashes = true
	r.delegate(metadata.TARGETS, "qa", "*")
	r.sign("qa", "x", []byte("one"))
	r.publish(metadata.TARGETS, "qa")
	c := r.client()
	held := loaded(t, c, nil, "x")
	r.sign("qa", "x", []byte("other"))
	r.write("qa")
	r.publish()
	s, err := c.Load(t.Context(), refreshed(t, c, held), "x")
	wantFault(t, err, v1alpha1.ReasonRollback, "qa.json: version 1 was seen before with other content")
	if a := s.Signed("x", today); len(a.Signed) != 0 || !slices.Equal(a.Missing, []string{"qa"}) {
		t.Errorf("got %+v, want qa missing", a)
	}
}

// The timestamp that is held stays where the version is the same: the specification says so.
func TestTimestampOfTheSameVersion(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	held := refreshed(t, c, nil)
	r.timestamp.Signed.Meta["snapshot.json"].Version = 100
	r.put("/timestamp.json", r.signed(metadata.TIMESTAMP, r.timestamp.Signed))
	if next := refreshed(t, c, held); next != held {
		t.Errorf("got versions %+v, want the held State", next.Versions())
	}
}

func TestThreatTUFFreeze(t *testing.T) {
	past := today.Add(-time.Second)
	for name, tt := range map[string]struct {
		expire func(r *repository)
		file   string
	}{
		"root":      {func(r *repository) { r.root.Signed.Expires = past }, "root.json"},
		"timestamp": {func(r *repository) { r.timestamp.Signed.Expires = past }, "timestamp.json"},
		"snapshot":  {func(r *repository) { r.snapshot.Signed.Expires = past }, "snapshot.json"},
		"targets":   {func(r *repository) { r.targets[metadata.TARGETS].Signed.Expires = past }, "targets.json"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			tt.expire(r)
			r.publish(metadata.ROOT, metadata.TARGETS)
			_, err := r.client().Refresh(t.Context(), nil)
			wantFault(t, err, v1alpha1.ReasonMetadataExpired, tt.file+": expired at 2026-03-01T11:59:59Z",
				"sign it anew")
			_, err = r.client(func(c *tufrepo.Config) { c.ExpiredGrace = time.Hour }).Refresh(t.Context(), nil)
			wantFault(t, err, v1alpha1.ReasonMetadataExpired)
		})
	}
	t.Run("of what is held", func(t *testing.T) {
		r := newRepository(t)
		now := today
		c := r.client(func(c *tufrepo.Config) { c.Clock = func() time.Time { return now } })
		held := refreshed(t, c, nil)
		now = today.AddDate(1, 0, 0)
		_, err := c.Refresh(t.Context(), held)
		wantFault(t, err, v1alpha1.ReasonMetadataExpired, "root.json")
	})
}

func TestThreatTUFFastForward(t *testing.T) {
	for name, tt := range map[string]struct {
		rotate []string
		reset  func(r *repository)
		reason string
	}{
		"timestamp, recovered": {
			rotate: []string{metadata.TIMESTAMP}, reset: func(r *repository) { r.timestamp.Signed.Version = 1 },
		},
		"snapshot, recovered": {
			rotate: []string{metadata.TIMESTAMP, metadata.SNAPSHOT},
			reset:  func(r *repository) { r.snapshot.Signed.Version = 1 },
		},
		"targets, recovered": {
			rotate: []string{metadata.SNAPSHOT},
			reset: func(r *repository) {
				r.targets[metadata.TARGETS].Signed.Version = 1
				r.write(metadata.TARGETS)
			},
		},
		"timestamp, without rotation": {
			reset: func(r *repository) { r.timestamp.Signed.Version = 1 }, reason: v1alpha1.ReasonRollback,
		},
		"timestamp, with a rotation of other keys": {
			rotate: []string{metadata.ROOT, metadata.TARGETS},
			reset:  func(r *repository) { r.timestamp.Signed.Version = 1; r.publishTargetsQuietly() },
			reason: v1alpha1.ReasonRollback,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			first := *r.targets[metadata.TARGETS]
			r.timestamp.Signed.Version, r.snapshot.Signed.Version = 1000, 1000
			first.Signed.Version = 1
			r.targets[metadata.TARGETS].Signed.Version = 1000
			r.publish(metadata.TARGETS)
			c := r.client()
			held := refreshed(t, c, nil)
			for _, role := range tt.rotate {
				r.rotate(role)
			}
			tt.reset(r)
			if len(tt.rotate) > 0 {
				r.publish(metadata.ROOT)
			} else {
				r.publish()
			}
			next, err := c.Refresh(t.Context(), held)
			if tt.reason != "" {
				wantFault(t, err, tt.reason)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if v := next.Versions(); v.Timestamp > 2 && v.Snapshot > 2 && v.Targets > 2 {
				t.Errorf("got versions %+v, want one that starts anew", v)
			}
		})
	}
}

func (r *repository) publishTargetsQuietly() {
	r.targets[metadata.TARGETS].Signed.Version++
	r.write(metadata.TARGETS)
}

func TestThreatTUFMixAndMatch(t *testing.T) {
	for _, hashes := range []bool{false, true} {
		for _, role := range []string{"snapshot", "targets"} {
			t.Run(fmt.Sprintf("%s, hashes %t", role, hashes), func(t *testing.T) {
				r := newRepository(t)
				r.hashes = hashes
				r.publish(metadata.TARGETS)
				r.publish(metadata.TARGETS)
				r.put("/3."+role+".json", r.served("/2."+role+".json"))
				_, err := r.client().Refresh(t.Context(), nil)
				wantFault(t, err, v1alpha1.ReasonMetadataInvalid, role+".json")
			})
		}
	}
}

// Each of these is signed by the right keys, or is not and says so: what is wrong is the content.
func TestThreatUnusableTUFMetadata(t *testing.T) {
	for name, tt := range map[string]struct {
		role   string
		mutate func(signed map[string]any)
		words  string
	}{
		"another type":          {"timestamp", set("_type", "snapshot"), `it is of type "snapshot"`},
		"no type":               {"snapshot", unset("_type"), "it is of type"},
		"another specification": {"targets", set("spec_version", "2.0.0"), `version "2.0.0" of the TUF specification`},
		"no specification":      {"targets", unset("spec_version"), "of the TUF specification"},
		"version 0":             {"targets", set("version", 0), `"version" is not an integer above 0`},
		"version as a text":     {"timestamp", set("version", "1"), `"version" is not an integer above 0`},
		"no expiry":             {"timestamp", unset("expires"), `"expires" is no time`},
		"expiry without a time": {"snapshot", set("expires", "2030-01-01"), `"expires" is no time`},
		"no meta":               {"timestamp", unset("meta"), "snapshot.json"},
		"null meta":             {"timestamp", set("meta", map[string]any{"snapshot.json": nil}), "not an object"},
		"meta without a version": {
			"timestamp", set("meta", map[string]any{"snapshot.json": map[string]any{}}), "version",
		},
		"negative length": {
			"timestamp", set("meta", map[string]any{"snapshot.json": map[string]any{"version": 2, "length": -1}}),
			"length",
		},
		"a hash in base64": {
			"timestamp",
			set("meta", map[string]any{"snapshot.json": map[string]any{
				"version": 2, "hashes": map[string]any{"sha256": "q1MKE+RZFJgrefm34+uplM/R8/si9xzqGvvwK0YMbR0="},
			}}),
			"sha256",
		},
		"hashes of unknown algorithms": {
			"timestamp",
			set("meta", map[string]any{"snapshot.json": map[string]any{
				"version": 2, "hashes": map[string]any{"md5": "00"},
			}}),
			"unknown algorithm",
		},
		"no targets in the snapshot": {"snapshot", set("meta", map[string]any{}), "does not list targets.json"},
		"targets is a list":          {"targets", set("targets", []any{}), "targets"},
		"a null target": {
			"targets", set("targets", map[string]any{"x": nil}), `target "x" is not an object`,
		},
		"a target without a length": {
			"targets", set("targets", map[string]any{"x": map[string]any{"hashes": map[string]any{}}}), "length",
		},
		"a target with a short hash": {
			"targets",
			set("targets", map[string]any{"x": map[string]any{"length": 1, "hashes": map[string]any{"sha256": "00"}}}),
			"sha256",
		},
		"a null delegation": {
			"targets", set("delegations", map[string]any{"keys": map[string]any{}, "roles": []any{nil}}),
			"not an object",
		},
		"no roles in the root": {"root", set("roles", map[string]any{}), `role "root"`},
		"a null role": {
			"root", func(signed map[string]any) { signed["roles"].(map[string]any)["timestamp"] = nil },
			`role "timestamp"`,
		},
		"a null key": {
			"root", func(signed map[string]any) {
				for id := range signed["keys"].(map[string]any) {
					signed["keys"].(map[string]any)[id] = nil
				}
			}, "by 0 of the role's keys",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.mutate[tt.role] = tt.mutate
			r.publish(metadata.ROOT, metadata.TARGETS)
			_, err := r.client().Refresh(t.Context(), nil)
			wantFault(t, err, v1alpha1.ReasonMetadataInvalid, tt.words)
		})
	}
}

func set(name string, v any) func(map[string]any) {
	return func(signed map[string]any) { signed[name] = v }
}
func unset(name string) func(map[string]any) {
	return func(signed map[string]any) { delete(signed, name) }
}

// What a reader sees must be what was signed: another spelling of a name, or a name that occurs
// twice, must not come between.
func TestThreatTUFFieldsThatAreReadButNotSigned(t *testing.T) {
	for name, tt := range map[string]struct{ old, new string }{
		"a second signed part":      {`{"signatures":`, `{"Signed":{"_type":"timestamp","version":9},"signatures":`},
		"a name twice":              {`"version":2`, `"version":9,"version":2`},
		"a name twice, later":       {`"version":2`, `"version":2,"version":9`},
		"another spelling":          {`"version":2`, `"Version":9,"version":2`},
		"a part after the document": {`{"signatures":`, `{} {"signatures":`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.publish()
			raw := string(r.served("/timestamp.json"))
			spoilt := strings.Replace(raw, tt.old, tt.new, 1)
			if spoilt == raw {
				t.Fatalf("%s has no %s", raw, tt.old)
			}
			r.put("/timestamp.json", []byte(spoilt))
			s, err := r.client().Refresh(t.Context(), nil)
			if err == nil && s.Versions().Timestamp != 2 {
				t.Errorf("got version %d, want the signed one", s.Versions().Timestamp)
			}
			if name != "a second signed part" {
				wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "timestamp.json")
			}
		})
	}
}

func TestThreatTUFServerFaults(t *testing.T) {
	for _, path := range []string{"/2.root.json", "/timestamp.json", "/2.snapshot.json", "/2.targets.json"} {
		for name, tt := range map[string]struct {
			fault  faultproxy.Fault
			reason []string
		}{
			"cut":     {faultproxy.Fault{Cut: 20}, []string{v1alpha1.ReasonUnreachable}},
			"dropped": {faultproxy.Fault{Drop: true}, []string{v1alpha1.ReasonUnreachable}},
			"short":   {faultproxy.Fault{Truncate: 20}, []string{v1alpha1.ReasonMetadataInvalid}},
			"corrupt": {
				faultproxy.Fault{Corrupt: true}, []string{v1alpha1.ReasonMetadataInvalid, v1alpha1.ReasonRootNotPinned},
			},
			"500": {faultproxy.Fault{Status: 500}, []string{v1alpha1.ReasonServerError}},
			"web page": {
				faultproxy.Fault{Status: 200, Body: "<html>Sign in"}, []string{v1alpha1.ReasonUnexpectedAnswer},
			},
			"endless": {
				faultproxy.Fault{Status: 200, Body: strings.Repeat(" ", 16<<20)}, []string{v1alpha1.ReasonTooLarge},
			},
		} {
			t.Run(name+path, func(t *testing.T) {
				r := newRepository(t)
				c := r.client()
				held := refreshed(t, c, nil)
				r.publish(metadata.ROOT, metadata.TARGETS)
				tt.fault.Match = ends(path)
				r.proxy.Set(tt.fault)
				_, err := c.Refresh(t.Context(), held)
				if f := trust.AsFault(err, "none"); err == nil || !slices.Contains(tt.reason, f.Reason) {
					t.Errorf("got %v, want a fault %v", err, tt.reason)
				}
				r.proxy.Set()
				if got := refreshed(t, c, held).Versions().Timestamp; got != 2 {
					t.Errorf("afterwards: got timestamp %d, want 2", got)
				}
			})
		}
	}
}

func TestSignedLengthBoundsTheRequest(t *testing.T) {
	r := newRepository(t)
	r.hashes = true
	r.publish(metadata.TARGETS)
	for _, path := range []string{"/2.snapshot.json", "/2.targets.json"} {
		before := r.served(path)
		r.put(path, append(slices.Clone(before), ' '))
		_, err := r.client().Refresh(t.Context(), nil)
		wantFault(t, err, v1alpha1.ReasonTooLarge, path, "bytes that it may have")
		r.put(path, before)
	}
}

func TestMissingFiles(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	files := r.copied()
	r.back(nil)
	_, err := c.Refresh(t.Context(), nil)
	if !errors.Is(err, trust.ErrNotFound) {
		t.Errorf("no repository: got %v, want ErrNotFound", err)
	}
	r.back(files)
	held := refreshed(t, c, nil)
	r.publish(metadata.TARGETS)
	all := r.copied()
	for _, path := range []string{"/timestamp.json", "/2.snapshot.json", "/2.targets.json"} {
		some := maps.Clone(all)
		delete(some, path)
		r.back(some)
		_, err := c.Refresh(t.Context(), held)
		wantFault(t, err, v1alpha1.ReasonMetadataMissing, strings.TrimPrefix(path, "/"))
		if errors.Is(err, trust.ErrNotFound) {
			t.Errorf("%s: got ErrNotFound, want a fault alone", path)
		}
	}
	// A repository with a second root exists, also where it was never seen.
	r.publish(metadata.ROOT)
	some := r.copied()
	delete(some, "/timestamp.json")
	r.back(some)
	_, err = c.Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataMissing, "timestamp.json")
}

func TestThreatTUFMemory(t *testing.T) {
	r := newRepository(t)
	small := budget.New(256 << 10)
	c := r.client(func(c *tufrepo.Config) { c.Budget = small })
	held := refreshed(t, c, nil)
	for i := range 20000 {
		r.sign(metadata.TARGETS, fmt.Sprintf("acme/app:%d", i), []byte("x"))
	}
	r.publish(metadata.TARGETS)
	_, err := c.Refresh(t.Context(), held)
	wantFault(t, err, v1alpha1.ReasonTooLarge, "bytes of memory")
	if _, err := r.client().Refresh(t.Context(), nil); err != nil {
		t.Errorf("with the usual budget: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	r := newRepository(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.client().Refresh(ctx, nil)
	wantFault(t, err, v1alpha1.ReasonTimeout)
}

func TestPinnedRoot(t *testing.T) {
	r := newRepository(t)
	good := r.served("/1.root.json")
	var doc map[string]any
	if err := json.Unmarshal(good, &doc); err != nil {
		t.Fatal(err)
	}
	doc["signatures"] = []any{}
	unsigned, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string][]byte{
		"nothing": nil, "no JSON": []byte("x"), "unsigned": unsigned, "another file": r.served("/timestamp.json"),
		"large": append(slices.Clone(good), make([]byte, 600<<10)...),
	} {
		_, err := tufrepo.New(tufrepo.Config{Name: "x", Root: root}, r.getter())
		if f := trust.AsFault(err, "none"); err == nil || f.Reason != v1alpha1.ReasonInvalidKey {
			t.Errorf("%s: got %v, want a fault InvalidKey", name, err)
		}
	}
}
