package tufrepo_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// signedRepository has a second root, two delegations and hash bins, and a target in each.
func signedRepository(t testing.TB) (*repository, []string) {
	t.Helper()
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.delegate(metadata.TARGETS, "qa", "*")
	r.delegate("ci", "sub", "*")
	bins := r.split("qa", "bin", 1)
	roles := append(bins, metadata.TARGETS, "ci", "qa", "sub")
	for _, role := range roles {
		r.sign(role, "app", []byte("x"))
	}
	r.rotate(metadata.ROOT)
	r.publish(append(roles, metadata.ROOT)...)
	return r, []string{"ci", "qa", "qa", "sub", "targets"}
}

func TestPackAndUnpack(t *testing.T) {
	r, want := signedRepository(t)
	c := r.client()
	s := loaded(t, c, nil, "app")
	wantRoles(t, s, "app", want...)
	packed := s.Pack()
	if again := s.Pack(); !bytes.Equal(packed, again) {
		t.Error("got another record of the same State, want the same")
	}
	r.proxy.Reset()
	restarted := r.client()
	back, err := restarted.Unpack(t.Context(), packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantRoles(t, back, "app", want...)
	if got := r.requests(); len(got) != 0 {
		t.Errorf("got requests %q, want none", got)
	}
	if back.Versions() != s.Versions() {
		t.Errorf("got versions %+v, want %+v", back.Versions(), s.Versions())
	}
	if next, err := c.Unpack(t.Context(), packed, s); err != nil || next != s {
		t.Errorf("got %v, want the held State: the record adds nothing", err)
	}
	if next, err := c.Recheck(t.Context(), s); err != nil || !slices.Equal(roles(next, "app"), want) {
		t.Errorf("Recheck: got %v, want the same roles", err)
	}
	// It goes on from there.
	r.publish("ci")
	wantRoles(t, loaded(t, restarted, back, "app"), "app", want...)
}

func TestNewerOfRecordAndHeld(t *testing.T) {
	r, _ := signedRepository(t)
	c := r.client()
	old := loaded(t, c, nil, "app")
	r.publish("ci")
	next := loaded(t, c, old, "app")
	if got, err := c.Unpack(t.Context(), old.Pack(), next); err != nil || got != next {
		t.Errorf("got versions %+v and %v, want the held State, which is newer", got.Versions(), err)
	}
	got, err := c.Unpack(t.Context(), next.Pack(), old)
	if err != nil || got.Versions() != next.Versions() {
		t.Errorf("got versions %+v and %v, want those of the record, which is newer", got.Versions(), err)
	}
}

// A record with a newer root must not bring back an older timestamp that the root's keys have
// signed.
func TestThreatTUFRollbackByARecord(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	refreshed(t, c, nil)
	r.root.Signed.Version++
	r.write(metadata.ROOT)
	second := r.served("/2.root.json")
	old := refreshed(t, c, nil).Pack()
	r.mu.Lock()
	delete(r.files, "/2.root.json")
	r.mu.Unlock()
	r.publish()
	held := refreshed(t, c, nil)
	got, err := c.Unpack(t.Context(), old, held)
	if err != nil || got != held {
		t.Errorf("got versions %+v and %v, want the held State: the record's timestamp is older", got.Versions(), err)
	}
	// With new keys of the timestamp, versions start anew.
	r.put("/2.root.json", second)
	r.rotate(metadata.TIMESTAMP)
	r.timestamp.Signed.Version = 0
	r.root.Signed.Version = 1
	r.publish(metadata.ROOT)
	recovered := refreshed(t, c, nil)
	if got, err = c.Unpack(t.Context(), recovered.Pack(), held); err != nil || got.Versions().Timestamp != 1 {
		t.Errorf("got versions %+v and %v, want those after the recovery", got.Versions(), err)
	}
}

// A State that another client verified, perhaps under another pinned root, is refused.
func TestThreatTUFStateOfAnotherClient(t *testing.T) {
	r, other := newRepository(t), newRepository(t)
	c := r.client()
	held := refreshed(t, other.client(), nil)
	for name, call := range map[string]func() (*tufrepo.State, error){
		"Refresh": func() (*tufrepo.State, error) { return c.Refresh(t.Context(), held) },
		"Load":    func() (*tufrepo.State, error) { return c.Load(t.Context(), held, "app") },
		"LoadAll": func() (*tufrepo.State, error) { return c.LoadAll(t.Context(), held) },
		"Unpack":  func() (*tufrepo.State, error) { return c.Unpack(t.Context(), held.Pack(), held) },
		"Recheck": func() (*tufrepo.State, error) { return c.Recheck(t.Context(), held) },
		"Target": func() (*tufrepo.State, error) {
			_, err := c.Target(t.Context(), held, "app")
			return nil, err
		},
	} {
		s, err := call()
		if f := trust.AsFault(err, "none"); err == nil || f.Reason == "none" || s != nil {
			t.Errorf("%s: got %v and %v, want a fault", name, s, err)
		}
	}
}

func TestThreatTUFRecordIsVerifiedAgain(t *testing.T) {
	r, want := signedRepository(t)
	c := r.client()
	s := loaded(t, c, nil, "app")
	packed := s.Pack()

	t.Run("under another pinned root", func(t *testing.T) {
		_, err := newRepository(t).client().Unpack(t.Context(), packed, nil)
		wantFault(t, err, v1alpha1.ReasonRootNotPinned, "root.json")
	})
	t.Run("under a newer pinned root", func(t *testing.T) {
		second := r.client(func(c *tufrepo.Config) { c.Root = r.served("/2.root.json") })
		back, err := second.Unpack(t.Context(), packed, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantRoles(t, back, "app", want...)
	})
	t.Run("with a revoked key", func(t *testing.T) {
		revoking := r.client(func(c *tufrepo.Config) { c.RevokedKeys = []string{r.keys["ci"][0].id} })
		back, err := revoking.Unpack(t.Context(), packed, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantRoles(t, back, "app", "qa", "qa", "targets")
	})
	t.Run("with a byte changed", func(t *testing.T) {
		for range 300 {
			spoilt := bytes.Clone(packed)
			spoilt[rand.IntN(len(spoilt))] ^= byte(1 + rand.IntN(255))
			back, err := c.Unpack(t.Context(), spoilt, nil)
			if _, isFault := errors.AsType[*trust.Fault](err); err != nil && !isFault {
				t.Fatalf("got error %v, want a fault", err)
			}
			if err == nil && !slices.Equal(roles(back, "app"), want) {
				t.Fatalf("got roles %q, want %q or a fault", roles(back, "app"), want)
			}
		}
	})
	for name, spoilt := range map[string][]byte{
		"empty": nil, "no header": packed[1:], "header alone": []byte("tufrepo1"), "cut": packed[:len(packed)/2],
		"another version":   append([]byte("tufrepo2"), packed[8:]...),
		"a bomb":            bomb(t),
		"more than it says": understated(t, packed),
		"of no files":       record(t),
		"out of order":      record(t, "targets", string(r.served("/1.targets.json"))),
		"roots alone":       record(t, "root", string(r.served("/2.root.json"))),
	} {
		t.Run(name, func(t *testing.T) {
			back, err := c.Unpack(t.Context(), spoilt, nil)
			if f := trust.AsFault(err, "none"); err == nil || f.Reason == "none" || back != nil {
				t.Errorf("got %v and %v, want a fault and no State", back, err)
			}
		})
	}
}

// bomb is a record of a gigabyte that says that it is short.
func bomb(t *testing.T) []byte {
	var out bytes.Buffer
	out.WriteString("tufrepo1")
	out.Write(binary.AppendUvarint(nil, 1000))
	w := gzip.NewWriter(&out)
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return out.Bytes()
}

// understated is a record that says that it is a byte shorter than it is.
func understated(t *testing.T, packed []byte) []byte {
	t.Helper()
	_, n := binary.Uvarint(packed[8:])
	z, err := gzip.NewReader(bytes.NewReader(packed[8+n:]))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.AppendUvarint([]byte("tufrepo1"), uint64(len(plain)-1)), packed[8+n:]...)
}

// record is a record of named files.
func record(t *testing.T, parts ...string) []byte {
	var plain, out bytes.Buffer
	for _, part := range parts {
		plain.Write(binary.AppendUvarint(nil, uint64(len(part))))
		plain.WriteString(part)
	}
	out.WriteString("tufrepo1")
	out.Write(binary.AppendUvarint(nil, uint64(plain.Len())))
	w := gzip.NewWriter(&out)
	if _, err := w.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return out.Bytes()
}

func TestThreatTUFRecordOfAnotherRepositoryFile(t *testing.T) {
	// A delegated file that the snapshot does not list in that version does not count.
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.sign("ci", "app", []byte("x"))
	r.publish(metadata.TARGETS, "ci")
	old := loaded(t, r.client(), nil, "app")
	delete(r.targets["ci"].Signed.Targets, "app")
	r.publish("ci")
	c := r.client()
	s := loaded(t, c, nil, "app")
	wantRoles(t, s, "app")
	forged := record(t,
		"timestamp", string(r.served("/timestamp.json")), "snapshot", string(r.served("/3.snapshot.json")),
		"targets", string(r.served("/2.targets.json")), "ci", string(r.served("/1.ci.json")))
	back, err := c.Unpack(t.Context(), forged, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := back.Signed("app", today); len(a.Signed) != 0 || !slices.Equal(a.Missing, []string{"ci"}) {
		t.Errorf("got %+v, want ci missing", a)
	}
	wantRoles(t, old, "app", "ci")
}

func TestThreatGraceOfTUFMetadata(t *testing.T) {
	r, _ := signedRepository(t)
	now := today
	clock := func(c *tufrepo.Config) { c.Clock = func() time.Time { return now } }
	strict := r.client(clock)
	graceful := r.client(clock, func(c *tufrepo.Config) { c.ExpiredGrace = time.Hour })
	s := loaded(t, strict, nil, "app")
	packed := s.Pack()

	now = today.AddDate(1, 0, 0).Add(30 * time.Minute)
	back, err := graceful.Unpack(t.Context(), packed, nil)
	if err != nil {
		t.Fatalf("within the grace: got %v, want the record", err)
	}
	if until, _ := back.Expiry(); !until.Equal(today.AddDate(1, 0, 0)) {
		t.Errorf("got expiry %s, want it unchanged", until)
	}
	_, err = graceful.Refresh(t.Context(), back)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired) // fetched files have no grace
	for name, c := range map[string]*tufrepo.Client{"no grace": strict, "past the grace": graceful} {
		if name == "past the grace" {
			now = today.AddDate(1, 0, 0).Add(time.Hour)
		}
		back, err := c.Unpack(t.Context(), packed, nil)
		wantFault(t, err, v1alpha1.ReasonMetadataExpired)
		if back == nil {
			t.Fatalf("%s: got no State, want one that remembers the versions", name)
		}
		if got := back.Signed("app", today).Signed; len(got) != 0 {
			t.Errorf("%s: got %+v, want it to prove nothing", name, got)
		}
		if _, err := c.Target(t.Context(), back, "app"); err == nil {
			t.Errorf("%s: got a target, want a fault", name)
		}
		// The versions still bind.
		r.timestamp.Signed.Version = 1
		r.timestamp.Signed.Expires = today.AddDate(9, 0, 0)
		r.root.Signed.Expires = today.AddDate(9, 0, 0)
		r.root.Signed.Version = 3
		r.write(metadata.ROOT, metadata.TIMESTAMP)
		_, err = c.Refresh(t.Context(), back)
		wantFault(t, err, v1alpha1.ReasonRollback, "timestamp.json")
		r.mu.Lock()
		delete(r.files, "/3.root.json")
		r.mu.Unlock()
	}
}

func TestSizeIsABound(t *testing.T) {
	r := newRepository(t)
	c := r.client()
	s := refreshed(t, c, nil)
	small := s.Size()
	for i := range 1000 {
		r.sign(metadata.TARGETS, fmt.Sprintf("acme/app:%d", i), []byte("x"))
	}
	r.publish(metadata.TARGETS)
	s = refreshed(t, c, s)
	if grown := s.Size() - small; grown < int64(len(r.served("/2.targets.json"))) {
		t.Errorf("got %d bytes more, want at least the %d of the file", grown, len(r.served("/2.targets.json")))
	}
}

func FuzzUnpack(f *testing.F) {
	r, _ := signedRepository(f)
	c := r.client()
	s, err := c.Refresh(f.Context(), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Pack())
	f.Add([]byte("tufrepo1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		back, err := c.Unpack(context.Background(), data, nil)
		if (back == nil) == (err == nil) {
			t.Errorf("got State %v and error %v, want one of them", back, err)
		}
	})
}
