package certs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/internal/testenv"
)

func TestMounted(t *testing.T) {
	dir := t.TempDir()
	if m, err := NewMounted(dir); m != nil || err != nil {
		t.Fatalf("an empty folder: %v, %v; want neither", m, err)
	}
	if m, err := NewMounted(filepath.Join(dir, "not-there")); m != nil || err == nil {
		t.Errorf("a folder that is not there: %v, %v; want an error", m, err)
	}
	first := mount(t, dir)
	m, err := NewMounted(dir)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, m, first)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		second := mount(t, dir)
		testenv.Await(t, "the certificate that was mounted", func() error { return serves(m, second) })
		mounted(t, m, second)
	})
	t.Run("without a bundle", func(t *testing.T) {
		if err := os.Remove(filepath.Join(dir, caKey)); err != nil {
			t.Fatal(err)
		}
		if bundle, _, err := m.CABundle(t.Context()); err != nil || len(bundle) > 0 {
			t.Errorf("the bundle is %q, %v", bundle, err)
		}
		write(t, dir, caKey, []byte("x"))
		if _, _, err := m.CABundle(t.Context()); err == nil {
			t.Error("a bundle without a certificate was accepted")
		}
	})
	t.Run("a broken key", func(t *testing.T) {
		write(t, dir, corev1.TLSPrivateKeyKey, []byte("x"))
		if err := m.ReadCertificate(); err == nil {
			t.Error("a broken key was accepted")
		}
		if c, err := m.GetCertificate(nil); err != nil || c == nil {
			t.Errorf("what was served before is gone: %v", err)
		}
		if _, err := NewMounted(dir); err == nil {
			t.Error("a broken key was accepted at the start")
		}
	})
}

// mount writes a new certificate into a folder, as certificate and key are replaced one after the other.
func mount(t *testing.T, dir string) *pair {
	t.Helper()
	p, err := issue(host, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, caKey, pemOf("CERTIFICATE", p.ca.Raw))
	write(t, dir, corev1.TLSCertKey, p.certPEM)
	write(t, dir, corev1.TLSPrivateKeyKey, p.keyPEM)
	return p
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mounted(t *testing.T, m *Mounted, want *pair) {
	t.Helper()
	if err := serves(m, want); err != nil {
		t.Error(err)
	}
	bundle, again, err := m.CABundle(t.Context())
	if err != nil || !bytes.Equal(bundle, pemOf("CERTIFICATE", want.ca.Raw)) || again <= 0 || again > time.Minute {
		t.Errorf("the bundle is %q, to be read again in %s, %v", bundle, again, err)
	}
}

func serves(m *Mounted, want *pair) error {
	c, err := m.GetCertificate(nil)
	if err != nil {
		return err
	}
	if !c.Leaf.Equal(want.tls.Leaf) {
		return os.ErrNotExist
	}
	return nil
}
