package notary

import (
	"slices"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// graceful returns a config with a grace of two days. Its clock returns the time at now.
func (v *virtual) graceful(now *time.Time) Config {
	cfg := v.config()
	cfg.ExpiredGrace, cfg.Clock = 48*time.Hour, func() time.Time { return *now }
	return cfg
}

// The grace is only for evidence that was verified before it expired, not for fetched files.
func TestThreatGraceIsNotForWhatIsFetched(t *testing.T) {
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		t.Run(role+" expired at the first fetch", func(t *testing.T) {
			v := newVirtual(t)
			v.role(role).expires = testNow().Add(time.Hour)
			if role == "root" {
				v.bump("root")
			}
			v.publish()
			now := testNow().Add(2 * time.Hour)
			ev, err := v.root(v.graceful(&now)).Fetch(t.Context(), of(testGUN), nil)
			wantFault(t, err, v1alpha1.ReasonMetadataExpired)
			proves(t, ev)
		})
		t.Run(role+" expired when newly served", func(t *testing.T) {
			v := newVirtual(t)
			now := testNow()
			r := v.root(v.graceful(&now))
			previous := mustFetch(t, r, nil)
			v.role(role).expires = testNow().Add(time.Hour)
			v.bump("root", "timestamp", "snapshot", "targets")
			v.publish()
			now = testNow().Add(2 * time.Hour)
			_, err := r.Fetch(t.Context(), of(testGUN), previous)
			wantFault(t, err, v1alpha1.ReasonMetadataExpired)
		})
	}
	t.Run("the known files, expired", func(t *testing.T) {
		v := newVirtual(t)
		now := testNow()
		r := v.root(v.graceful(&now))
		previous := mustFetch(t, r, nil)
		now = testNow().AddDate(0, 0, 15)
		_, err := r.Fetch(t.Context(), of(testGUN), previous)
		wantFault(t, err, v1alpha1.ReasonMetadataExpired)
	})
}

// Evidence that has expired since verifies again within the grace, also from a record. Its expiry
// is unchanged.
func TestThreatGraceOfWhatIsReadBack(t *testing.T) {
	v := newVirtual(t)
	now := testNow()
	previous := mustFetch(t, v.root(v.graceful(&now)), nil)
	data := mustPack(t, v.root(v.graceful(&now)), previous)
	verify := map[string]func(cfg Config) (trust.Evidence, error){
		"read back": func(cfg Config) (trust.Evidence, error) { return v.root(cfg).unpackOne(testGUN, data, nil) },
		"verified again": func(cfg Config) (trust.Evidence, error) {
			return v.root(cfg).Recheck(of(testGUN), previous)
		},
	}
	for name, check := range verify {
		t.Run(name, func(t *testing.T) {
			now = testNow().AddDate(0, 0, 15) // the timestamp expired a day ago
			ev, err := check(v.graceful(&now))
			if err != nil {
				t.Fatal(err)
			}
			wantRoles(t, signedBy(ev, "v1"), "ci one", "qa one")
			if at, file := ev.Expiry(); !at.Equal(testNow().AddDate(0, 0, 14)) || file != "timestamp.json" {
				t.Errorf("got expiry %s of %s", at, file)
			}
			without := v.graceful(&now)
			without.ExpiredGrace = 0
			ev, err = check(without)
			wantFault(t, err, v1alpha1.ReasonMetadataExpired)
			proves(t, ev)
			for who, key := range map[string]*testKey{
				"timestamp": v.roles["timestamp"].keys[0], "root": v.roles["root"].keys[0],
			} {
				revoked := v.graceful(&now)
				revoked.RevokedKeys = []string{key.canonical}
				if ev, err = check(revoked); err == nil {
					t.Errorf("got a revoked %s key that counts in grace", who)
				}
				proves(t, ev)
			}
			revoked := v.graceful(&now)
			revoked.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical}
			if ev, err = check(revoked); err != nil {
				t.Fatal(err)
			}
			wantRoles(t, signedBy(ev, "v1"), "ci one")
			now = testNow().AddDate(0, 0, 16)
			ev, err = check(v.graceful(&now))
			wantFault(t, err, v1alpha1.ReasonMetadataExpired)
			proves(t, ev)
		})
	}
}

// A delegation that was expired when it was first seen never counts by the grace, not even after a
// restart.
func TestThreatGraceRevivesNoDelegation(t *testing.T) {
	v := newVirtual(t)
	v.role("targets/qa").expires = testNow().Add(-time.Hour)
	v.role("targets/ci").expires = testNow().Add(time.Hour)
	v.publish()
	now := testNow()
	r := v.root(v.graceful(&now))
	previous := mustFetch(t, r, nil)
	wantRoles(t, signedBy(previous, "v1"), "ci one")
	data := mustPack(t, r, previous)
	now = testNow().Add(2 * time.Hour)
	back := mustUnpack(t, v.root(v.graceful(&now)), data, nil)
	wantRoles(t, signedBy(back, "v1"), "ci one") // with its expiry, which the decision checks
	again, err := v.root(v.graceful(&now)).Recheck(of(testGUN), back)
	if err != nil {
		t.Fatal(err)
	}
	wantRoles(t, signedBy(again, "v1"), "ci one")
}

func TestFilesAndTheirExpiry(t *testing.T) {
	v := newVirtual(t)
	v.delegate("targets/releases", entry("one"))
	v.role("targets/qa").expires = testNow().AddDate(0, 0, 2)
	v.publish()
	dated, ok := mustFetch(t, v.root(v.config()), nil).(trust.Dated)
	if !ok {
		t.Fatal("got evidence without the expiry of its files")
	}
	year := testNow().AddDate(1, 0, 0)
	got := dated.Files()
	want := []trust.File{
		got[0], // the root expires with its certificate
		{Name: "timestamp.json", Kind: "timestamp", NotAfter: testNow().AddDate(0, 0, 14), Unattended: true},
		{Name: "snapshot.json", Kind: "snapshot", NotAfter: year},
		{Name: "targets.json", Kind: "targets", NotAfter: year},
		{Name: "targets/ci.json", NotAfter: year, Part: true, Kind: "delegation"},
		{Name: "targets/qa.json", NotAfter: testNow().AddDate(0, 0, 2), Part: true, Kind: "delegation"},
	}
	same := func(a, b trust.File) bool {
		return a.Name == b.Name && a.NotAfter.Equal(b.NotAfter) && a.Unattended == b.Unattended && a.Part == b.Part &&
			a.Kind == b.Kind
	}
	if got[0].Name != "root.json" || got[0].NotAfter.IsZero() || !slices.EqualFunc(got, want, same) {
		t.Errorf("got files %v, want %v", got, want)
	}
}
