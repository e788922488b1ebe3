package tufroot_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sigstoretuf "github.com/sigstore/sigstore-go/pkg/tuf"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/tufmirror"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/tufroot"
)

// The tests read no trusted root: these stand for some.
var (
	first  = []byte(`{"trustedRoot":1}`)
	second = []byte(`{"trustedRoot":2}`)
	third  = []byte(`{"trustedRoot":3}`)
)

// bed is a mirror, and a clock.
type bed struct {
	*tufmirror.Mirror
	t   *testing.T
	now time.Time
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	b.Mirror = tufmirror.Run(t, b.now.AddDate(0, 1, 0))
	b.Publish(first)
	return b
}

// source returns a new source of the mirror.
func (b *bed) source(change ...func(*tufroot.Config)) *tufroot.Source {
	b.t.Helper()
	cfg := tufroot.Config{
		Mirror: b.URL, CABundle: string(b.CA.PEM), Root: b.Root(), Clock: func() time.Time { return b.now },
		Check: func(raw []byte) error {
			if !bytes.HasPrefix(raw, []byte(`{"trustedRoot":`)) {
				return errors.New("is no trusted root")
			}
			return nil
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := tufroot.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// fetched returns the trusted root that a source fetches, and checks which one it is.
func (b *bed) fetched(s *tufroot.Source, held trust.Evidence, want []byte) trust.Evidence {
	b.t.Helper()
	got, err := s.Fetch(b.t.Context(), held)
	if err != nil {
		b.t.Fatalf("got %v, want the trusted root %s", err, want)
	}
	wantRoot(b.t, got, want)
	return got
}

func wantRoot(t *testing.T, got trust.Evidence, want []byte) {
	t.Helper()
	base, ok := got.(*tufroot.Base)
	if !ok || !bytes.Equal(base.TrustedRoot(), want) {
		t.Fatalf("got %v, want the trusted root %s", got, want)
	}
}

// wantFault checks the reason and words of a fault.
func wantFault(t *testing.T, err error, reason string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want a fault %s", reason)
	}
	if f := trust.AsFault(err, "none"); f.Reason != reason {
		t.Errorf("got fault %s (%v), want %s", f.Reason, err, reason)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got message %q, want it to contain %q", err, word)
		}
	}
}

// refused checks that a source refuses what the mirror serves.
func (b *bed) refused(s *tufroot.Source, held trust.Evidence, reason string, words ...string) {
	b.t.Helper()
	got, err := s.Fetch(b.t.Context(), held)
	if got != nil {
		b.t.Errorf("got %v, want no evidence", got)
	}
	wantFault(b.t, err, reason, words...)
}

// A fetch that finds nothing new returns what is held, after two small requests. A new trusted root
// is fetched, and a new timestamp alone changes the expiry.
func TestFetch(t *testing.T) {
	b := newBed(t)
	s := b.source()
	held := b.fetched(s, nil, first)
	b.Reset()
	if again := b.fetched(s, held, first); again != held {
		t.Error("got new evidence where nothing has changed, want what is held")
	}
	var paths []string
	for _, r := range b.Requests() {
		paths = append(paths, r.Path)
	}
	slices.Sort(paths)
	if diff := cmp.Diff([]string{"/2.root.json", "/timestamp.json"}, paths); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	b.Renew(b.now.AddDate(0, 0, 7))
	renewed := b.fetched(s, held, first)
	if at, file := renewed.Expiry(); !at.Equal(b.now.AddDate(0, 0, 7)) || file != "timestamp.json" {
		t.Errorf("got the expiry %s of %s, want that of the new timestamp.json", at, file)
	}
	b.Publish(second)
	held = b.fetched(s, renewed, second)
	b.RotateKeys()
	held = b.fetched(s, held, second)
	b.Publish(third)
	b.fetched(s, held, third)
}

// The evidence is about no image.
func TestBaseSaysNothingAboutImages(t *testing.T) {
	b := newBed(t)
	held := b.fetched(b.source(), nil, first)
	if len(held.Statements("", ""))+len(held.Hints("v1"))+len(held.Rejected(nil, "", ""))+len(held.Faults()) > 0 ||
		!held.Signed() {
		t.Errorf("got %+v, want evidence that says nothing about images", held)
	}
	base := held.(*tufroot.Base)
	if size := base.Size(); size < int64(len(first)) || size > 1<<20 {
		t.Errorf("got the size %d, want more than the trusted root, and less than 1 MiB", size)
	}
	kinds := map[string]bool{}
	for _, f := range base.Files() {
		kinds[f.Kind] = f.Unattended
	}
	want := map[string]bool{"root": false, "targets": false, "snapshot": false, "timestamp": true}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("files that the server signs by itself (-want +got):\n%s", diff)
	}
	// Near its end, a timestamp that was not renewed is one that nobody renews.
	end, began := base.Files()[1].NotAfter, b.now
	b.now = end.Add(-end.Sub(began)/4 - time.Second)
	if !base.Files()[1].Unattended {
		t.Error("got a timestamp that needs attention, want none before the last quarter of its time")
	}
	b.now = b.now.Add(time.Second)
	again, err := b.source().Recheck(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []trust.Evidence{base, again} {
		if e.(*tufroot.Base).Files()[1].Unattended {
			t.Error("got a timestamp that the server signs by itself, want one that needs attention")
		}
	}
}

// TestThreatRollbackOfTheTrustedRoot serves an older state of the whole repository, which is signed
// as the newer one is. The source refuses it, also after a restart, and also where only the
// snapshot or the targets are older.
func TestThreatRollbackOfTheTrustedRoot(t *testing.T) {
	b := newBed(t)
	older := b.Files()
	b.Publish(second)
	s := b.source()
	held := b.fetched(s, nil, second)
	packed, err := s.Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	b.Restore(older)
	b.refused(s, held, v1alpha1.ReasonRollback, "timestamp.json")
	restarted := b.source()
	restored, err := restarted.Unpack(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantRoot(t, restored, second)
	b.refused(restarted, restored, v1alpha1.ReasonRollback, "timestamp.json")
	b.fetched(b.source(), nil, first) // which has seen nothing newer
}

// TestThreatRecordOfAnOlderTrustedRoot reads a record with an older trusted root than the one that
// is held. The newer one stays.
func TestThreatRecordOfAnOlderTrustedRoot(t *testing.T) {
	b := newBed(t)
	s := b.source()
	old, err := s.Pack(b.fetched(s, nil, first))
	if err != nil {
		t.Fatal(err)
	}
	b.Publish(second)
	held := b.fetched(s, nil, second)
	if got, err := s.Unpack(old, held); got != held || err != nil {
		t.Errorf("got %v and %v, want what is held", got, err)
	}
}

// TestThreatFrozenMirror serves the same files for ever. They count until the first of them
// expires, and then neither what is held nor what is served does.
func TestThreatFrozenMirror(t *testing.T) {
	b := newBed(t)
	s := b.source()
	held := b.fetched(s, nil, first)
	end, _ := held.Expiry()
	packed, err := s.Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	b.now = end.Add(-time.Second)
	b.fetched(s, held, first)
	b.now = end
	b.refused(s, held, v1alpha1.ReasonMetadataExpired)
	b.refused(b.source(), nil, v1alpha1.ReasonMetadataExpired)
	_, err = s.Recheck(held)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired)
	restarted := b.source()
	remembered, err := restarted.Unpack(packed, nil)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired)
	b.Renew(b.now.AddDate(0, 0, 1))
	b.Publish(second)
	b.now = end.Add(-time.Hour) // root and targets have not expired
	b.fetched(restarted, remembered, second)
}

// TestThreatRollbackBehindAnExpiry lets what was seen expire, and then serves an older state that
// has not expired. What has expired still says which versions were seen, also in a record.
func TestThreatRollbackBehindAnExpiry(t *testing.T) {
	b := newBed(t)
	older := b.Files()
	b.Publish(second)
	b.Renew(b.now.AddDate(0, 0, 1))
	s := b.source()
	held := b.fetched(s, nil, second)
	packed, err := s.Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	b.now = b.now.AddDate(0, 0, 2)
	b.Restore(older)
	b.refused(s, held, v1alpha1.ReasonRollback)
	restarted := b.source()
	remembered, err := restarted.Unpack(packed, nil)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired)
	b.refused(restarted, remembered, v1alpha1.ReasonRollback)
}

// TestThreatMirrorWithoutSignatures lets the mirror replace files by its own. None of them counts,
// and what is held stays as it is.
func TestThreatMirrorWithoutSignatures(t *testing.T) {
	own := newBed(t) // of the attacker
	own.Publish(second)
	for name, tt := range map[string]struct {
		attack func(b *bed)
		reason string
	}{
		"another trusted root": {func(b *bed) {
			b.Put(b.TargetFile(first), second)
		}, v1alpha1.ReasonMetadataInvalid},
		"a timestamp of another repository": {func(b *bed) {
			b.Put("/timestamp.json", own.File("/timestamp.json"))
		}, v1alpha1.ReasonMetadataInvalid},
		"another repository": {func(b *bed) {
			other := newBed(b.t)
			other.RotateKeys() // so that it has a root to offer
			b.Restore(other.Files())
		}, v1alpha1.ReasonRootNotPinned},
		"targets of another repository": {func(b *bed) {
			b.Put("/2.targets.json", own.File("/2.targets.json"))
		}, v1alpha1.ReasonMetadataInvalid},
		"changed bytes": {func(b *bed) {
			b.Put("/2.targets.json", bytes.Replace(b.File("/2.targets.json"),
				[]byte(hexOf(first)), []byte(hexOf(second)), 1))
			b.Put(b.TargetFile(second), second)
		}, v1alpha1.ReasonMetadataInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			s := b.source() // which pins the root from before
			tt.attack(b)
			b.refused(s, nil, tt.reason)
		})
	}
}

// A trusted root that the repository has signed, but that cannot be used, does not replace the one
// before.
func TestUnusableTrustedRoot(t *testing.T) {
	b := newBed(t)
	s := b.source()
	held := b.fetched(s, nil, first)
	b.Publish([]byte("junk"))
	b.refused(s, held, v1alpha1.ReasonMetadataInvalid, b.URL, "trusted_root.json is no trusted root")
	b.Withdraw()
	b.refused(s, held, v1alpha1.ReasonMetadataMissing, "targets.json lists no trusted_root.json")
	b.Publish(bytes.Repeat([]byte(" "), trustedroot.MaxSize+1))
	b.refused(s, held, v1alpha1.ReasonTooLarge)
	b.Publish(second)
	b.fetched(s, held, second)
}

// Every fault of a mirror is a fault of its own class, and what is held stays.
func TestFaultsOfTheMirror(t *testing.T) {
	const page = "<p>Log in</p>" // within the length of the target
	isTarget := func(path string) bool { return strings.HasPrefix(path, "/targets/") }
	isTimestamp := func(path string) bool { return path == "/timestamp.json" }
	b := newBed(t)
	elsewhere := httptest.NewTLSServer(http.NotFoundHandler())
	defer elsewhere.Close()
	for name, tt := range map[string]struct {
		faultproxy.Fault
		reason string
	}{
		"a web page": {faultproxy.Fault{Status: 200, Body: page}, v1alpha1.ReasonUnexpectedAnswer},
		"a web page as a target": {
			faultproxy.Fault{Match: isTarget, Body: page, Status: 200}, v1alpha1.ReasonUnexpectedAnswer,
		},
		"no JSON": {
			faultproxy.Fault{Match: isTimestamp, Status: 200, Body: "junk"}, v1alpha1.ReasonMetadataInvalid,
		},
		"a truncated timestamp": {
			faultproxy.Fault{Match: isTimestamp, Truncate: 20}, v1alpha1.ReasonMetadataInvalid,
		},
		"a truncated target":   {faultproxy.Fault{Match: isTarget, Truncate: 5}, v1alpha1.ReasonMetadataInvalid},
		"a corrupt target":     {faultproxy.Fault{Match: isTarget, Corrupt: true}, v1alpha1.ReasonMetadataInvalid},
		"an endless timestamp": {faultproxy.Fault{Match: isTimestamp, Endless: true}, v1alpha1.ReasonTooLarge},
		"an endless target":    {faultproxy.Fault{Match: isTarget, Endless: true}, v1alpha1.ReasonTooLarge},
		"a missing target":     {faultproxy.Fault{Match: isTarget, Status: 404}, v1alpha1.ReasonMetadataMissing},
		"no repository":        {faultproxy.Fault{Status: 404}, v1alpha1.ReasonMetadataMissing},
		"401":                  {faultproxy.Fault{Status: 401}, v1alpha1.ReasonUnauthorized},
		"403":                  {faultproxy.Fault{Status: 403}, v1alpha1.ReasonUnauthorized},
		"429": {
			faultproxy.Fault{Match: isTimestamp, Status: 429, RetryAfter: "7"}, v1alpha1.ReasonServerError,
		},
		"500":                 {faultproxy.Fault{Status: 500}, v1alpha1.ReasonServerError},
		"a broken connection": {faultproxy.Fault{Drop: true}, v1alpha1.ReasonUnreachable},
		"a redirect elsewhere": {faultproxy.Fault{
			Match: isTarget, Status: 302, Header: map[string]string{"Location": elsewhere.URL + "/targets/x.json"},
		}, v1alpha1.ReasonUnexpectedAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bed{t: t, now: b.now, Mirror: b.Mirror}
			b.Set(tt.Fault)
			defer b.Set()
			b.refused(b.source(), nil, tt.reason)
		})
	}
	b.fetched(b.source(), nil, first)
}

// A probe says whether the server answers as one of this kind does.
func TestProbe(t *testing.T) {
	b := newBed(t)
	s := b.source()
	if err := s.Probe(t.Context()); err != nil {
		t.Errorf("got %v, want the mirror to answer", err)
	}
	b.Set(faultproxy.Fault{Status: 404})
	wantFault(t, s.Probe(t.Context()), v1alpha1.ReasonMetadataMissing, "no TUF repository")
	b.Set(faultproxy.Fault{Drop: true})
	wantFault(t, s.Probe(t.Context()), v1alpha1.ReasonUnreachable)
}

// After an edit, the new source verifies what the one before has held. Versions bind if the
// repository is the same.
func TestEdit(t *testing.T) {
	b, other := newBed(t), newBed(t)
	older := b.Files()
	b.Publish(second)
	held := b.fetched(b.source(), nil, second)
	edited := b.source()
	rechecked, err := edited.Recheck(held)
	if err != nil {
		t.Fatal(err)
	}
	wantRoot(t, rechecked, second)
	b.Restore(older)
	b.refused(edited, held, v1alpha1.ReasonRollback)
	b.refused(edited, rechecked, v1alpha1.ReasonRollback)

	elsewhere := other.source()
	_, err = elsewhere.Recheck(held)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
	other.fetched(elsewhere, held, first)
	_, err = elsewhere.Recheck(trust.Unsigned{})
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
}

// A record is verified from the pinned root, and no bit of it can change.
func TestRecord(t *testing.T) {
	b, other := newBed(t), newBed(t)
	s := b.source()
	held := b.fetched(s, nil, first)
	packed, err := s.Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Pack(b.fetched(b.source(), nil, first)); err != nil || !bytes.Equal(again, packed) {
		t.Errorf("got another record of the same files (%v), want the same", err)
	}
	b.Disconnect() // a record needs no network
	restored, err := b.source().Unpack(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantRoot(t, restored, first)
	if got, err := s.Unpack(packed, held); got != held || err != nil {
		t.Errorf("got %v and %v, want what is held, which is as new", got, err)
	}
	if got, err := other.source().Unpack(packed, nil); got != nil || err == nil {
		t.Errorf("got %v and %v, want a fault: another repository is pinned", got, err)
	}
	var fields map[string][]byte
	if err := json.Unmarshal(packed, &fields); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		for _, at := range []int{0, len(value) / 2, len(value) - 1} {
			spoilt := map[string][]byte{}
			for k, v := range fields {
				spoilt[k] = bytes.Clone(v)
			}
			spoilt[name][at] ^= 1
			raw, err := json.Marshal(spoilt)
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.source().Unpack(raw, nil)
			if base, ok := got.(*tufroot.Base); err == nil && (!ok || !bytes.Equal(base.TrustedRoot(), first)) {
				t.Errorf("%s, byte %d: got %v, want a fault, or what was packed", name, at, got)
			}
			if name == "trustedRoot" && err == nil {
				t.Errorf("%s, byte %d: got no error, want a fault", name, at)
			}
		}
	}
	for _, junk := range []string{"", "{}", "null", `{"metadata":"AAAA"}`} {
		if got, err := b.source().Unpack([]byte(junk), nil); got != nil || err == nil {
			t.Errorf("%q: got %v and %v, want a fault", junk, got, err)
		}
	}
}

// A configuration that cannot work is refused before any request.
func TestNewRefuses(t *testing.T) {
	b := newBed(t)
	for name, change := range map[string]func(*tufroot.Config){
		"http":           func(c *tufroot.Config) { c.Mirror = "http://tuf.example.com" },
		"no URL":         func(c *tufroot.Config) { c.Mirror = "tuf.example.com" },
		"no certificate": func(c *tufroot.Config) { c.CABundle = "junk" },
	} {
		cfg := tufroot.Config{Mirror: b.URL, CABundle: string(b.CA.PEM), Root: b.Root()}
		change(&cfg)
		if _, err := tufroot.New(cfg); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
	for name, root := range map[string][]byte{
		"junk": []byte("junk"), "no root": b.File("/timestamp.json"), "empty": {},
		"unsigned": bytes.Replace(b.Root(), []byte(`"sig":"`), []byte(`"sig":"00`), 1),
	} {
		_, err := tufroot.New(tufroot.Config{Mirror: b.URL, CABundle: string(b.CA.PEM), Root: root})
		if _, ok := errors.AsType[*tufroot.RootError](err); !ok {
			t.Errorf("%s: got %v, want an error about the root", name, err)
		}
	}
}

// The built-in root is that of the public instance: its root keys are the ones that the instance
// documents, and it is not older than the one of Sigstore's own client.
func TestPublicRoot(t *testing.T) {
	s, err := tufroot.New(tufroot.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Mirror(), "https://tuf-repo-cdn.sigstore.dev"; got != want {
		t.Errorf("got the mirror %s, want %s", got, want)
	}
	type root struct {
		Signed struct {
			Version int
			Roles   map[string]struct {
				KeyIDs    []string
				Threshold int
			}
		}
	}
	var built, theirs root
	if err := errors.Join(json.Unmarshal(tufroot.PublicRoot, &built),
		json.Unmarshal(sigstoretuf.DefaultRoot(), &theirs)); err != nil {
		t.Fatal(err)
	}
	if built.Signed.Version < theirs.Signed.Version {
		t.Errorf("got version %d of the root, want at least %d: copy the newer one", built.Signed.Version,
			theirs.Signed.Version)
	}
	keys := slices.Sorted(slices.Values(built.Signed.Roles["root"].KeyIDs))
	want := []string{
		"183e64f37670dc13ca0d28995a3053f3740954ddce44321a41e46534cf44e632",
		"22f4caec6d8e6f9555af66b3d4c3cb06a3bb23fdc7e39c916c61f462e6f52b06",
		"61643838125b440b40db6942f5cb5a31c0dc04368316eb2aaa58b95904a58222",
		"a687e5bf4fab82b0ee58d46e05c9535145a2c9afb458f43d42b45ca0fdce2a70",
		"e71a54d543835ba86adad9460379c7641fb8726d164ea766801a1c522aba7ea2",
	}
	if diff := cmp.Diff(want, keys); diff != "" || built.Signed.Roles["root"].Threshold != 3 {
		t.Errorf("root keys (-want +got), threshold %d, want 3:\n%s", built.Signed.Roles["root"].Threshold, diff)
	}
}

func hexOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
