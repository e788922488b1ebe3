package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

func TestMounted(t *testing.T) {
	dir := t.TempDir()
	clock := clocktesting.NewFakePassiveClock(time.Now())
	if m, err := NewMounted(dir, clock); m != nil || err != nil {
		t.Fatalf("an empty folder: %v, %v; want neither", m, err)
	}
	if m, err := NewMounted(filepath.Join(dir, "not-there"), clock); m != nil || err == nil {
		t.Errorf("a missing folder: %v, %v; want an error", m, err)
	}
	first := mount(t, dir)
	m, err := NewMounted(dir, clock)
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
		poll.Await(t, "the new certificate to be read", func() error { return newest(m, second) })
		if bundle, _, err := m.CABundle(t.Context()); err != nil || !allHold([][]byte{bundle}, first.ca) ||
			!allHold([][]byte{bundle}, second.ca) {
			t.Errorf("the bundle is %q, %v; want both CAs", bundle, err)
		}
		clock.SetTime(clock.Now().Add(Uptake - time.Second))
		if err := serves(m, first); err != nil {
			t.Error("a certificate is served whose CA API servers may not know")
		}
		clock.SetTime(clock.Now().Add(time.Second))
		if err := serves(m, second); err != nil {
			t.Error("the new certificate is not served")
		}
		clock.SetTime(clock.Now().Add(Retention))
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
			t.Errorf("the previous certificate is not served: %v", err)
		}
		if _, err := NewMounted(dir, clock); err == nil {
			t.Error("a broken key was accepted at the start")
		}
	})
}

// mount writes a new certificate into a folder: first the certificate, then the key.
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

func serves(m *Mounted, want *pair) error { return is(m.GetCertificate, want) }

func newest(m *Mounted, want *pair) error { return is(m.Newest, want) }

func is(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), want *pair) error {
	c, err := get(nil)
	if err != nil {
		return err
	}
	if !c.Leaf.Equal(want.tls.Leaf) {
		return os.ErrNotExist
	}
	return nil
}

// TestMountedCA replaces the files of the folder in ways that change the CA.
func TestMountedCA(t *testing.T) {
	type folder struct {
		*Mounted
		dir   string
		clock *clocktesting.FakePassiveClock
		first *pair
	}
	// put mounts a certificate with a bundle.
	put := func(t *testing.T, f *folder, p *pair, cas ...*pair) {
		var text []byte
		for _, c := range cas {
			text = append(text, pemOf("CERTIFICATE", c.ca.Raw)...)
		}
		write(t, f.dir, caKey, text)
		write(t, f.dir, corev1.TLSCertKey, p.certPEM)
		write(t, f.dir, corev1.TLSPrivateKeyKey, p.keyPEM)
		if err := f.ReadCertificate(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.look(); err != nil {
			t.Fatal(err)
		}
	}
	for name, run := range map[string]func(t *testing.T, f *folder, second *pair){
		"the new CA comes first": func(t *testing.T, f *folder, second *pair) {
			put(t, f, f.first, f.first, second)
			f.clock.SetTime(f.clock.Now().Add(Uptake))
			put(t, f, second, f.first, second)
			if err := serves(f.Mounted, second); err != nil {
				t.Error("a certificate that API servers know is not served")
			}
		},
		"with a certificate that no CA has signed": func(t *testing.T, f *folder, second *pair) {
			put(t, f, second, f.first)
			f.clock.SetTime(f.clock.Now().Add(2 * Uptake))
			if err := serves(f.Mounted, f.first); err != nil {
				t.Error("a valid certificate was replaced by one that no API server accepts")
			}
		},
		"when the one before has expired": func(t *testing.T, f *folder, second *pair) {
			f.clock.SetTime(f.first.tls.Leaf.NotAfter.Add(time.Second))
			put(t, f, second, second)
			if err := serves(f.Mounted, second); err != nil {
				t.Error("an expired certificate is served")
			}
		},
		"for one of the system's": func(t *testing.T, f *folder, second *pair) {
			put(t, f, second)
			if err := serves(f.Mounted, second); err != nil {
				t.Error("a certificate is served whose CA is not in the configurations")
			}
			if bundle, _, err := f.CABundle(t.Context()); len(bundle) > 0 || err != nil {
				t.Errorf("the bundle is %q, %v", bundle, err)
			}
		},
		"while another replica leads": func(t *testing.T, f *folder, second *pair) {
			configured := pemOf("CERTIFICATE", second.ca.Raw)
			for range 2 { // the second call removes a CA that was added to the configurations later
				bundle, _, err := f.CABundle(t.Context(), configured, nil)
				if held := certificates(bundle); err != nil || len(held) != 2 || !held.has(second.ca) ||
					!held.has(f.first.ca) {
					t.Errorf("the bundle is %q, %v; want the CA that was there, too", bundle, err)
				}
				third, err := issue(host, f.clock.Now())
				if err != nil {
					t.Fatal(err)
				}
				configured = pemOf("CERTIFICATE", third.ca.Raw)
			}
			f.clock.SetTime(f.clock.Now().Add(Retention))
			mounted(t, f.Mounted, f.first)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &folder{dir: t.TempDir(), clock: clocktesting.NewFakePassiveClock(time.Now())}
			f.first = mount(t, f.dir)
			var err error
			if f.Mounted, err = NewMounted(f.dir, f.clock); err != nil {
				t.Fatal(err)
			}
			second, err := issue(host, f.clock.Now().Add(lifetime/2))
			if err != nil {
				t.Fatal(err)
			}
			f.clock.SetTime(f.clock.Now().Add(lifetime / 2))
			run(t, f, second)
		})
	}
}

// A folder that cannot be watched ends the manager, which then restarts. Otherwise its certificate
// would expire.
func TestMountedFolderIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount(t, dir)
	m, err := NewMounted(dir, clocktesting.NewFakePassiveClock(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Start(t.Context()) }()
	poll.Await(t, "Start to return", func() error {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("Start returned no error, want one")
			}
			return nil
		default:
			return errors.New("it goes on")
		}
	})
}
