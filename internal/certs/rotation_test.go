package certs

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// spoiling deletes the Secret or makes it unusable.
func spoiling() map[string]func(*corev1.Secret) {
	return map[string]func(*corev1.Secret){
		"deleted":   nil,
		"no key":    func(s *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = []byte("x") },
		"no bundle": func(s *corev1.Secret) { delete(s.Data, caKey) },
		"emptied": func(s *corev1.Secret) {
			s.Data, s.Annotations = map[string][]byte{corev1.TLSCertKey: nil, corev1.TLSPrivateKeyKey: nil}, nil
		},
	}
}

func (f *fleet) spoil(t *testing.T, how func(*corev1.Secret)) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SecretName}}
	var err error
	if how == nil {
		err = client.IgnoreNotFound(f.Delete(t.Context(), secret))
	} else if err = f.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err == nil {
		how(secret)
		err = f.Update(t.Context(), secret)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// testLost deletes the Secret, or makes it unusable, in each phase, with a leader that has state in
// memory and with one that has just started.
func testLost(t *testing.T, c client.Client) {
	phases := map[string]time.Duration{
		"steady": day, "new CA in the bundle": 60*day + Uptake/2, "new certificate served": 60*day + 2*Uptake,
	}
	for how, spoil := range spoiling() {
		for phase, age := range phases {
			for _, restarted := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, leader restarted %t", how, phase, restarted), func(t *testing.T) {
					f := newFleet(t, c, 3)
					f.turn(t)
					f.pass(min(age, 60*day))
					f.turn(t)
					f.pass(max(age-60*day, 0))
					f.turn(t)
					f.spoil(t, spoil)
					f.follow(t, f.replicas...)
					f.check(t)
					before := f.served(t, f.replicas[1])
					if restarted {
						f.restart(t, f.replicas[0])
					}
					f.lead(t, f.replicas[0], 1) // the Secret, and no further
					f.follow(t, f.replicas...)
					f.check(t)
					if !f.served(t, f.replicas[1]).Equal(before) {
						t.Error("a replica no longer serves the certificate that API servers know")
					}
					if restarted && f.replicas[0].own.Load().Ready() == nil &&
						!f.served(t, f.replicas[0]).Equal(before) {
						t.Error("the leader is ready with a certificate that no API server knows")
					}
					f.turn(t)
					if err := f.replicas[0].own.Load().Ready(); err != nil {
						t.Error(err)
					}
					f.pass(Uptake)
					f.turn(t)
					f.pass(Retention)
					f.turn(t)
					if s := f.held(t); s.overlaps() || !f.served(t, f.replicas[2]).Equal(s.newest.tls.Leaf) {
						t.Error("the rotation has not ended")
					}
				})
			}
		}
	}
}

// testReplaced replaces the certificate in use by another valid one.
func testReplaced(t *testing.T, c client.Client) {
	f := newFleet(t, c, 2)
	f.turn(t)
	before := f.served(t, f.replicas[0])
	f.put(t, tenYears(t, f.clock.Now().Add(-day)))
	f.follow(t, f.replicas[0])
	f.check(t)
	f.turn(t)
	for i, r := range f.replicas {
		if !f.served(t, r).Equal(before) {
			t.Errorf("replica %d serves a certificate that API servers may not know", i)
		}
	}
	f.restart(t, f.replicas[1])
	f.check(t)
	f.pass(Uptake)
	f.turn(t)
	if f.served(t, f.replicas[0]).Equal(before) {
		t.Error("the new certificate is never served")
	}
	f.pass(Retention)
	f.turn(t)
	if n := len(f.held(t).bundle); n != 1 {
		t.Errorf("the final bundle has %d CAs, want 1", n)
	}
}

// testOneConfigurationLags never writes the validating configuration.
func testOneConfigurationLags(t *testing.T, c client.Client) {
	f := newFleet(t, c, 2)
	f.turn(t)
	before := f.served(t, f.replicas[0])
	f.pass(60 * day)
	for range 20 {
		f.lead(t, f.replicas[0], 2)
		f.follow(t, f.replicas...)
		f.check(t)
		f.pass(12 * time.Hour)
	}
	if !f.held(t).trusted.IsZero() || !f.served(t, f.replicas[1]).Equal(before) {
		t.Error("the new certificate counts as trusted while one configuration lacks its CA")
	}
	f.turn(t)
	f.pass(Uptake)
	f.turn(t)
	if f.served(t, f.replicas[1]).Equal(before) {
		t.Error("the rotation does not continue")
	}
}

// testLongStop starts the operator after everything has expired, or after a clock was wrong.
func testLongStop(t *testing.T, c client.Client) {
	for name, late := range map[string]time.Duration{"a year later": 365 * day, "with the clock set back": -day} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, c, 2)
			f.turn(t)
			f.pass(late)
			for _, r := range f.replicas {
				f.restart(t, r)
			}
			for range 3 {
				f.lead(t, f.replicas[0], 3)
				f.follow(t, f.replicas...)
			}
			f.replaced = nil // nothing that an API server holds is good any more until it knows the new one
			f.check(t)
			for i, r := range f.replicas {
				if err := r.own.Load().Ready(); err != nil {
					t.Errorf("replica %d: %v", i, err)
				}
			}
			if s := f.held(t); s.trusted.After(f.clock.Now()) {
				t.Errorf("trusted since %s, want a time in the past", s.trusted)
			}
		})
	}
}

// testWrongClock follows a leader whose clock was a year ahead when it recorded the time.
func testWrongClock(t *testing.T, c client.Client) {
	f := newFleet(t, c, 2)
	f.turn(t)
	f.pass(60 * day)
	f.turn(t)
	before := f.served(t, f.replicas[0])
	secret := f.secret(t)
	secret.Annotations[trustedAnnotation] = f.clock.Now().Add(365 * day).Format(time.RFC3339)
	if err := f.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	f.turn(t)
	f.pass(Uptake)
	f.turn(t)
	if f.served(t, f.replicas[1]).Equal(before) {
		t.Error("the rotation waits for a time in the future")
	}
}

// testClockBehind has a leader whose clock is a year behind, as after a machine was restored. Its
// certificates have expired for all other replicas, which must not serve them.
func testClockBehind(t *testing.T, c client.Client) {
	f := newFleet(t, c, 2)
	f.turn(t)
	f.pass(Uptake)
	f.turn(t)
	before := f.served(t, f.replicas[1])
	behind := &Own{
		Client: f.Client, Namespace: namespace, Host: host,
		Clock: clocktesting.NewFakePassiveClock(f.clock.Now().Add(-365 * day)),
	}
	for range 3 {
		if err := behind.Use(f.secret(t)); err != nil {
			t.Fatal(err)
		}
		bundle, _, err := behind.CABundle(t.Context(), f.configured[:]...)
		if err != nil {
			t.Fatal(err)
		}
		f.configured = [2][]byte{bundle, bundle}
	}
	if s := f.held(t); s.newest.tls.Leaf.Equal(before) || s.trusted.IsZero() {
		t.Fatal("the leader has made no certificate, or noted no time")
	}
	right := f.replicas[1]
	f.follow(t, right)
	if err := f.handshake(t.Context(), right, f.configured[0]); err != nil {
		t.Errorf("a replica whose clock is right is refused: %v", err)
	}
	f.lead(t, right, 3)
	f.replicas = []*replica{right}
	f.turn(t)
	f.pass(Uptake)
	f.turn(t)
	if s := f.served(t, right); s.Equal(before) || !s.NotAfter.After(f.clock.Now()) {
		t.Errorf("the final certificate expires %s, want a later time", s.NotAfter)
	}
}

// testRandom simulates months with crashes, changes of the leader, restarts, slow replicas and a
// lost Secret. At all times the certificate of each replica must verify with every bundle that an
// API server may have.
func testRandom(t *testing.T, c client.Client) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f, r := newFleet(t, c, 3), rand.New(rand.NewPCG(seed, 4))
			f.turn(t)
			heard := make([]time.Time, len(f.replicas))
			began, rotations, newest := f.clock.Now(), 0, f.held(t).newest.tls.Leaf
			for f.clock.Now().Sub(began) < 140*day {
				f.pass(
					[]time.Duration{time.Second, time.Minute, Uptake / 2, Uptake, time.Hour, 6 * time.Hour}[r.IntN(6)])
				if s := f.held(t); !s.overlaps() {
					if !s.newest.tls.Leaf.Equal(newest) {
						newest = s.newest.tls.Leaf
						rotations++
					}
					f.pass(time.Duration(r.Int64N(int64(4 * day))))
				}
				f.check(t)
				if r.IntN(40) == 0 { // to which its replicas have listened up to then
					f.follow(t, f.replicas...)
					for _, how := range spoiling() {
						f.spoil(t, how)
						break
					}
				}
				leader := f.replicas[r.IntN(3)]
				if r.IntN(8) == 0 {
					f.restart(t, leader)
				}
				f.follow(t, leader)
				f.lead(t, leader, 1+r.IntN(3))
				f.check(t)
				for i, replica := range f.replicas {
					if late := f.clock.Now().Sub(heard[i]) > 12*time.Hour; late || r.IntN(3) == 0 {
						f.follow(t, replica)
						heard[i] = f.clock.Now()
					}
				}
				f.check(t)
				if _, err := parse(f.secret(t)); err != nil {
					t.Fatalf("the leader has written an unusable Secret: %v", err)
				}
			}
			if rotations < 2 {
				t.Errorf("only %d rotations ended", rotations)
			}
		})
	}
}
