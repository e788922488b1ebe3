package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv"
)

const host = "countersign-webhook.countersign-system.svc"

// TestEnsure keeps the certificate in a Secret of a real API server.
func TestEnsure(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	c, err := client.New(testenv.RunKube(t, testenv.KubeOptions{WithoutCRDs: true}).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "countersign-system"}}); err != nil {
		t.Fatal(err)
	}
	t.Run("no namespace", func(t *testing.T) {
		if _, err := Ensure(t.Context(), c, "not-there", host, time.Now()); err == nil || !strings.Contains(err.Error(), "--namespace") {
			t.Errorf("error = %v, want it to say what to do", err)
		}
	})
	t.Run("serves", func(t *testing.T) { testServes(t, c) })
	t.Run("keeps and replaces", func(t *testing.T) { testKeepsAndReplaces(t, c) })
	t.Run("replicas agree", func(t *testing.T) { testReplicasAgree(t, c) })
}

func forget(t *testing.T, c client.Client) {
	t.Helper()
	if err := c.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace("countersign-system")); err != nil {
		t.Fatal(err)
	}
}

func secretOf(t *testing.T, c client.Client) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "countersign-system", Name: SecretName}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func ensure(t *testing.T, c client.Client, host string, now time.Time) *Serving {
	t.Helper()
	s, err := Ensure(t.Context(), c, "countersign-system", host, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testServes(t *testing.T, c client.Client) {
	now := time.Now()
	for _, name := range []string{host, "127.0.0.1", "::1"} {
		t.Run(name, func(t *testing.T) {
			s := ensure(t, c, name, now)
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(s.CABundle) {
				t.Fatal("the bundle holds no certificate")
			}
			leaf, err := x509.ParseCertificate(s.Certificate.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
				t.Error(err)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "other.example.com", Roots: roots, CurrentTime: now}); err == nil {
				t.Error("the certificate is good for another host")
			}
		})
	}
}

func testKeepsAndReplaces(t *testing.T, api client.Client) {
	now := time.Now()
	cases := map[string]struct {
		host   string
		now    time.Time
		spoil  func(*corev1.Secret)
		remade bool
	}{
		"as it was":       {host: host, now: now},
		"about to expire": {host: host, now: now.Add(lifetime - renewBefore + time.Hour), remade: true},
		"another host":    {host: "127.0.0.1", now: now, remade: true},
		"not a key":       {host: host, now: now, spoil: func(s *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = []byte("x") }, remade: true},
		"no bundle":       {host: host, now: now, spoil: func(s *corev1.Secret) { delete(s.Data, caKey) }, remade: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			forget(t, api)
			first := ensure(t, api, host, now)
			if c.spoil != nil {
				s := secretOf(t, api)
				c.spoil(s)
				if err := api.Update(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			second := ensure(t, api, c.host, c.now)
			if remade := string(first.CABundle) != string(second.CABundle); remade != c.remade {
				t.Errorf("made anew: %v, want %v", remade, c.remade)
			}
			if string(secretOf(t, api).Data[caKey]) != string(second.CABundle) {
				t.Error("what is served is not what the Secret holds")
			}
		})
	}
}

func testReplicasAgree(t *testing.T, api client.Client) {
	forget(t, api)
	got := make([]*Serving, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			s, err := Ensure(context.WithoutCancel(t.Context()), api, "countersign-system", host, time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = s
		})
	}
	wg.Wait()
	for i, s := range got {
		if s == nil || string(s.CABundle) != string(got[0].CABundle) {
			t.Errorf("replica %d serves another certificate than replica 0", i)
		}
	}
}

func TestMounted(t *testing.T) {
	dir := t.TempDir()
	if s, err := Mounted(dir); s != nil || err != nil {
		t.Fatalf("an empty folder: %v, %v; want neither", s, err)
	}
	if s, err := Mounted(filepath.Join(dir, "not-there")); s != nil || err == nil {
		t.Errorf("a folder that is not there: %v, %v; want an error", s, err)
	}
	data, err := issue(host, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range data {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Mounted(dir)
	if err != nil || string(s.CABundle) != string(data[caKey]) {
		t.Fatalf("Mounted = %v, %v", s, err)
	}
	if _, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey]); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, corev1.TLSPrivateKeyKey), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Mounted(dir); err == nil {
		t.Error("a broken key was accepted")
	}
}
