package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
)

const (
	namespace = "countersign-system"
	host      = "127.0.0.1"
	day       = 24 * time.Hour
)

// TestOwn keeps the certificate in a Secret of a real API server.
func TestOwn(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	c, err := client.New(kubeserver.Run(t, kubeserver.Options{WithoutCRDs: true}).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	t.Run("no namespace", func(t *testing.T) {
		own := &Own{Client: c, Namespace: "not-there", Host: host, Clock: clocktesting.NewFakePassiveClock(time.Now())}
		if _, _, err := own.CABundle(t.Context(), nil, nil); err == nil ||
			!strings.Contains(err.Error(), "--namespace") {
			t.Errorf("error = %v, want one that names --namespace", err)
		}
	})
	t.Run("hosts", func(t *testing.T) { testHosts(t, c) })
	t.Run("first start", func(t *testing.T) { testFirstStart(t, c) })
	t.Run("walk", func(t *testing.T) { testWalk(t, c) })
	t.Run("adopted", func(t *testing.T) { testAdopted(t, c) })
	t.Run("lost", func(t *testing.T) { testLost(t, c) })
	t.Run("replaced", func(t *testing.T) { testReplaced(t, c) })
	t.Run("one configuration lags", func(t *testing.T) { testOneConfigurationLags(t, c) })
	t.Run("long stop", func(t *testing.T) { testLongStop(t, c) })
	t.Run("wrong clock", func(t *testing.T) { testWrongClock(t, c) })
	t.Run("a clock that is behind", func(t *testing.T) { testClockBehind(t, c) })
	t.Run("random", func(t *testing.T) { testRandom(t, c) })
}

// fleet is some replicas, the bundles in both webhook configurations, and API servers that may
// still have the bundles before them.
type fleet struct {
	client.Client
	clock    *clocktesting.FakePassiveClock
	replicas []*replica
	// configured are the bundles of the mutating and the validating configuration; replaced are the
	// bundles before them.
	configured [2][]byte
	replaced   []earlier
}

type earlier struct {
	bundle []byte
	until  time.Time
}

// replica serves TLS with the certificate of its Own.
type replica struct {
	own     atomic.Pointer[Own]
	address string
	// unaware says that the replica started when the Secret did not say what API servers know.
	unaware bool
}

func newFleet(t *testing.T, c client.Client, replicas int) *fleet {
	t.Helper()
	if err := c.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	f := &fleet{Client: c, clock: clocktesting.NewFakePassiveClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))}
	for range replicas {
		r := &replica{}
		f.replicas = append(f.replicas, r)
		f.restart(t, r)
		l, err := tls.Listen("tcp", host+":0", &tls.Config{
			MinVersion: tls.VersionTLS12, Time: f.clock.Now,
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return r.own.Load().GetCertificate(hello)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.address = l.Addr().String()
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).HandshakeContext(t.Context()) // the client tells
				conn.Close()
			}
		})
		t.Cleanup(func() {
			l.Close()
			serving.Wait()
		})
	}
	return f
}

// restart empties the memory of a replica, which then reads the Secret.
func (f *fleet) restart(t *testing.T, r *replica) {
	t.Helper()
	r.own.Store(&Own{Client: f.Client, Namespace: namespace, Host: host, Clock: f.clock})
	f.follow(t, r)
	h := r.own.Load().held.Load()
	r.unaware = h == nil || h.trusted.IsZero() && h.overlaps() && h.previous == nil
}

// follow makes a replica read the Secret. It keeps its certificate where the Secret is unusable.
func (f *fleet) follow(t *testing.T, replicas ...*replica) {
	t.Helper()
	secret := &corev1.Secret{}
	err := f.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: SecretName}, secret)
	if apierrors.IsNotFound(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range replicas {
		_ = r.own.Load().Use(secret)
	}
}

// lead runs the leader once, and ends it after so many of its three writes: Secret, mutating and
// validating configuration.
func (f *fleet) lead(t *testing.T, r *replica, writes int) {
	t.Helper()
	bundle, wait, err := r.own.Load().CABundle(t.Context(), f.configured[:]...)
	if err != nil {
		t.Fatal(err)
	}
	if wait <= 0 || wait > time.Hour {
		t.Errorf("the leader reads again in %s, want a time of up to an hour", wait)
	}
	for i := range writes - 1 {
		if string(f.configured[i]) == string(bundle) {
			continue
		}
		if f.configured[i] != nil {
			f.replaced = append(f.replaced, earlier{f.configured[i], f.clock.Now()})
		}
		f.configured[i] = bundle
	}
}

// turn runs the leader to the end, and then every replica.
func (f *fleet) turn(t *testing.T) {
	t.Helper()
	for range 3 {
		f.lead(t, f.replicas[0], 3)
		f.follow(t, f.replicas...)
		f.check(t)
	}
}

func (f *fleet) pass(d time.Duration) { f.clock.SetTime(f.clock.Now().Add(d)) }

// check tests that a handshake with every ready replica succeeds, with every bundle that an API
// server may have. There is one exception. A replica without memory, in a rotation that the Secret
// does not record, serves a certificate whose CA is in the configurations: API servers may not know
// it yet.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	var late [][]byte
	for _, e := range f.replaced {
		if f.clock.Now().Before(e.until.Add(Uptake)) {
			late = append(late, e.bundle)
		}
	}
	for i, r := range f.replicas {
		own := r.own.Load()
		if own.Ready() != nil {
			continue
		}
		known := f.configured[:]
		r.unaware = r.unaware && !own.held.Load().inForce(f.clock.Now())
		if !r.unaware {
			known = append(known, late...)
		}
		asked := map[string]bool{"": true}
		for _, bundle := range known {
			if asked[string(bundle)] {
				continue
			}
			asked[string(bundle)] = true
			if err := f.handshake(t.Context(), r, bundle); err != nil {
				t.Fatalf("%s: an API server that trusts %s refuses replica %d, which serves %s: %v",
					f.clock.Now(), names(bundle), i, f.served(t, r).Issuer, err)
			}
		}
	}
}

func (f *fleet) handshake(ctx context.Context, r *replica, bundle []byte) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host, Time: f.clock.Now,
	}}
	conn, err := d.DialContext(ctx, "tcp", r.address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func names(bundle []byte) (all []string) {
	for _, ca := range certificates(bundle) {
		all = append(all, ca.Subject.String())
	}
	return all
}

// served returns the serving certificate of a replica.
func (f *fleet) served(t *testing.T, r *replica) *x509.Certificate {
	t.Helper()
	c, err := r.own.Load().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// held returns the state in the Secret.
func (f *fleet) held(t *testing.T) *state {
	t.Helper()
	s, err := parse(f.secret(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fleet) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{}
	if err := f.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: SecretName}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func testHosts(t *testing.T, c client.Client) {
	for _, name := range []string{"countersign-webhook.countersign-system.svc", "127.0.0.1", "::1"} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, c, 1) // made for another host
			f.lead(t, f.replicas[0], 3)
			own := &Own{Client: c, Namespace: namespace, Host: name, Clock: f.clock}
			bundle, _, err := own.CABundle(t.Context(), f.configured[:]...)
			if err != nil {
				t.Fatal(err)
			}
			if err := own.Use(f.secret(t)); err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(bundle)
			got, err := own.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			options := x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: f.clock.Now()}
			if _, err := got.Leaf.Verify(options); err != nil {
				t.Error(err)
			}
			options.DNSName = "other.example.com"
			if _, err := got.Leaf.Verify(options); err == nil {
				t.Error("the certificate is valid for another host, want an error")
			}
		})
	}
}

// testFirstStart makes the first certificate on many replicas at the same time, each of which
// believes that it leads.
func testFirstStart(t *testing.T, c client.Client) {
	f := newFleet(t, c, 8)
	if _, err := f.replicas[0].own.Load().GetCertificate(nil); err == nil || f.replicas[0].own.Load().Ready() == nil {
		t.Error("a replica serves before there is a certificate, want an error")
	}
	var wg sync.WaitGroup
	for i, r := range f.replicas {
		wg.Go(func() {
			for {
				_, _, err := r.own.Load().CABundle(context.WithoutCancel(t.Context()), nil, nil)
				if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
					continue
				}
				if err != nil {
					t.Errorf("replica %d: %v", i, err)
				}
				return
			}
		})
	}
	wg.Wait()
	f.turn(t)
	for i, r := range f.replicas {
		if !f.served(t, r).Equal(f.served(t, f.replicas[0])) {
			t.Errorf("replica %d serves another certificate than replica 0", i)
		}
		if err := r.own.Load().Ready(); err != nil {
			t.Errorf("replica %d: %v", i, err)
		}
	}
	if n := len(f.held(t).bundle); n != 1 {
		t.Errorf("the first bundle has %d CAs, want 1", n)
	}
}

// testWalk tests the life of a certificate, step by step.
func testWalk(t *testing.T, c client.Client) {
	f := newFleet(t, c, 3)
	f.turn(t)
	first := f.served(t, f.replicas[1])
	expect := func(what string, served *x509.Certificate, cas int) {
		t.Helper()
		f.turn(t)
		for i, r := range f.replicas {
			if got := f.served(t, r); !got.Equal(served) {
				t.Errorf("%s: replica %d serves %s", what, i, got.Issuer)
			}
		}
		for i, b := range f.configured {
			if got := len(certificates(b)); got != cas {
				t.Errorf("%s: configuration %d holds %d CAs, want %d", what, i, got, cas)
			}
		}
	}
	f.pass(59 * day)
	expect("not due", first, 1)
	f.pass(day)
	expect("due", first, 2)
	second := f.held(t).newest.tls.Leaf
	if second.Equal(first) || f.held(t).newest.ca.Equal(f.held(t).previous.ca) {
		t.Fatal("the new certificate, or its CA, is the old one")
	}
	f.pass(Uptake - time.Minute)
	expect("not taken up", first, 2)
	f.pass(time.Minute)
	expect("taken up", second, 2)
	f.pass(Retention - time.Minute)
	expect("retained", second, 2)
	f.pass(time.Minute)
	expect("over", second, 1)
	f.pass(59 * day)
	expect("due again", second, 2)
	f.pass(Uptake)
	f.turn(t)
	if f.served(t, f.replicas[2]).Equal(second) {
		t.Error("the third certificate is not served")
	}
}

// tenYears returns the Secret of an earlier release: a CA and a certificate of ten years only.
func tenYears(t *testing.T, made time.Time) map[string][]byte {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, parent *x509.Certificate, k, by *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, k.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("CERTIFICATE", der)
	}
	caKeyPair, leafKey := key(), key()
	ca, leaf := template("countersign webhook CA", made), template("countersign webhook", made)
	for _, c := range []*x509.Certificate{ca, leaf} {
		c.NotAfter, c.Subject.SerialNumber = made.Add(3650*day), ""
	}
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf.IPAddresses = []net.IP{net.ParseIP(host)}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		caKey: sign(ca, ca, caKeyPair, caKeyPair), corev1.TLSCertKey: sign(leaf, ca, leafKey, caKeyPair),
		corev1.TLSPrivateKeyKey: pemOf("PRIVATE KEY", keyDER),
	}
}

// testAdopted starts with the Secret of an earlier release and the configurations that hold its CA.
func testAdopted(t *testing.T, c client.Client) {
	for name, made := range map[string]time.Duration{"a day old": day, "a year old": 365 * day} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, c, 2)
			data := tenYears(t, f.clock.Now().Add(-made))
			f.put(t, data)
			f.configured = [2][]byte{data[caKey], data[caKey]}
			for _, r := range f.replicas {
				f.restart(t, r)
			}
			before := f.served(t, f.replicas[0])
			f.turn(t)
			if !f.served(t, f.replicas[1]).Equal(before) {
				t.Error("the certificate of the earlier release is no longer served")
			}
			f.pass(60 * day)
			f.turn(t)
			f.pass(Uptake)
			f.turn(t)
			if got := f.served(t, f.replicas[1]); got.Equal(before) || got.NotAfter.Sub(f.clock.Now()) > 90*day {
				t.Errorf("the certificate after two months is valid until %s, want a shorter one", got.NotAfter)
			}
		})
	}
}

func (f *fleet) put(t *testing.T, data map[string][]byte) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SecretName}, Type: corev1.SecretTypeTLS, Data: data,
	}
	err := f.Update(t.Context(), secret)
	if apierrors.IsNotFound(err) {
		err = f.Create(t.Context(), secret)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoCAKeyIsKept tests that the Secret holds no private keys but those of serving certificates.
func TestNoCAKeyIsKept(t *testing.T) {
	now := time.Now()
	old, err := issue(host, now)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := issue(host, now)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{}
	(&state{newest: old, bundle: bundle{old.ca}}).replaced(fresh, old).put(secret)
	keys := 0
	for name, value := range secret.Data {
		for block, rest := pem.Decode(value); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" {
				continue
			}
			keys++
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, ca := range []*x509.Certificate{old.ca, fresh.ca} {
				if ca.PublicKey.(*ecdsa.PublicKey).Equal(key.(*ecdsa.PrivateKey).Public()) {
					t.Errorf("%s is the key of a CA, want keys of serving certificates only", name)
				}
			}
		}
	}
	if keys != 2 {
		t.Errorf("found %d keys, want 2", keys)
	}
}
