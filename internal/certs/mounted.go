package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// reread is how often the files of a mounted certificate are read, besides when the file system
// reports a change.
const reread = 10 * time.Second

// Mounted is a certificate in a folder that somebody else keeps, and replaces in time: tls.crt and
// tls.key, with ca.crt as the bundle where it is there. Each is read again when it changes; while
// that cannot be used, the one before stays.
//
// A kubelet takes a minute or two to mount what has changed, and each takes another. So where the
// CA is replaced too, the two overlap here as well: a certificate is served when this replica has
// seen its CA in ca.crt for Uptake, and a CA that has left ca.crt stays in the bundle for
// Retention.
type Mounted struct {
	*certwatcher.CertWatcher
	dir   string
	clock clock.PassiveClock

	mu      sync.Mutex
	serving *tls.Certificate
	cas     []sighting
	led     bool // whether the bundle was asked for
}

// sighting is a CA that is or was in ca.crt.
type sighting struct {
	ca *x509.Certificate
	// since is when it was first seen; zero: it was there from the start.
	since time.Time
	// left is since when it is not there any more; zero: it is there.
	left time.Time
}

// NewMounted reads the certificate in a folder, and returns nil if the folder holds no tls.crt.
// Changes are taken up while Start runs.
func NewMounted(dir string, clock clock.PassiveClock) (*Mounted, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("--cert-dir: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, corev1.TLSCertKey), filepath.Join(dir, corev1.TLSPrivateKeyKey)
	if _, err := os.Stat(certFile); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	watcher, err := certwatcher.New(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the serving certificate in %s: %w", dir, err)
	}
	m := &Mounted{CertWatcher: watcher.WithWatchInterval(reread), dir: dir, clock: clock}
	text, err := m.read()
	for _, ca := range certificates(text) {
		m.cas = append(m.cas, sighting{ca: ca})
	}
	if err == nil {
		m.serving, err = m.Newest(nil)
	}
	return m, err
}

// Start takes up changes until the context ends. It returns an error where it cannot watch the
// files.
func (m *Mounted) Start(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()
	looking.Go(func() {
		wait.UntilWithContext(ctx, func(context.Context) {
			_, _ = m.look()              // the leader tells of an error
			_, _ = m.GetCertificate(nil) // goes over also where nobody asks
		}, reread)
	})
	return m.CertWatcher.Start(ctx)
}

// GetCertificate is for tls.Config. It returns the certificate in the folder once API servers know
// its CA, and until then the one before as long as that is good.
func (m *Mounted) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	newest, err := m.Newest(hello)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if newest != m.serving && (m.known(newest) || !m.good(m.serving)) {
		m.serving = newest
	}
	return m.serving, nil
}

// Newest is for the tls.Config of a server whose clients take the CA from where the folder has it,
// and not from the webhook configurations. It returns the certificate in the folder.
func (m *Mounted) Newest(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.CertWatcher.GetCertificate(hello)
}

// known says whether API servers have had the time to take up a CA of the certificate. Where ca.crt
// holds none, they trust the roots of their systems.
func (m *Mounted) known(c *tls.Certificate) bool {
	there := slices.ContainsFunc(m.cas, func(s sighting) bool { return s.left.IsZero() })
	return !there ||
		m.verified(c, func(s sighting) bool { return s.since.IsZero() || !m.clock.Now().Before(s.since.Add(Uptake)) })
}

// good says whether the certificate is accepted by whom trusts the bundle.
func (m *Mounted) good(c *tls.Certificate) bool {
	return m.verified(c, func(sighting) bool { return true })
}

func (m *Mounted) verified(c *tls.Certificate, by func(sighting) bool) bool {
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: m.clock.Now(),
	}
	for _, s := range m.cas {
		if by(s) {
			options.Roots.AddCert(s.ca)
		}
	}
	for _, der := range c.Certificate[1:] {
		if ca, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(ca)
		}
	}
	_, err := c.Leaf.Verify(options)
	return err == nil
}

// CABundle returns what ca.crt holds with what it has held a short time ago, nothing where it is
// not there, and when to ask again. What the webhook configurations hold stays in the bundle when
// this replica begins to lead: it has not seen what was there before it started.
func (m *Mounted) CABundle(_ context.Context, configured ...[]byte) ([]byte, time.Duration, error) {
	text, err := m.look()
	if err != nil || len(text) == 0 {
		return nil, reread, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.led {
		m.led = true
		for _, bundle := range configured {
			m.keep(certificates(bundle))
		}
	}
	bundle := slices.Clone(text)
	if bundle[len(bundle)-1] != '\n' {
		bundle = append(bundle, '\n')
	}
	for _, s := range m.cas {
		if !s.left.IsZero() {
			bundle = append(bundle, pemOf("CERTIFICATE", s.ca.Raw)...)
		}
	}
	return bundle, reread, nil
}

// keep has CAs stay that ca.crt may have held before.
func (m *Mounted) keep(cas bundle) {
	for _, ca := range cas {
		if !slices.ContainsFunc(m.cas, func(s sighting) bool { return s.ca.Equal(ca) }) {
			m.cas = append(m.cas, sighting{ca: ca, left: m.clock.Now()})
		}
	}
}

// look reads ca.crt, and notes which CAs have come and which have left.
func (m *Mounted) look() ([]byte, error) {
	text, err := m.read()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, there := m.clock.Now(), certificates(text)
	for i, s := range m.cas {
		switch {
		case there.has(s.ca):
			m.cas[i].left = time.Time{}
		case s.left.IsZero():
			m.cas[i].left = now
		}
	}
	for _, ca := range there {
		if !slices.ContainsFunc(m.cas, func(s sighting) bool { return s.ca.Equal(ca) }) {
			m.cas = append(m.cas, sighting{ca: ca, since: now})
		}
	}
	m.cas = slices.DeleteFunc(m.cas, func(s sighting) bool {
		return !s.left.IsZero() && !now.Before(s.left.Add(Retention))
	})
	return text, nil
}

func (m *Mounted) read() ([]byte, error) {
	bundle, err := os.ReadFile(filepath.Join(m.dir, caKey))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the CA bundle of the serving certificate: %w", err)
	}
	if len(bundle) > 0 && len(certificates(bundle)) == 0 {
		return nil, fmt.Errorf("the CA bundle of the serving certificate, %s in %s, holds no certificate", caKey, m.dir)
	}
	return bundle, nil
}

// Ready returns nil: there is a certificate from the start.
func (m *Mounted) Ready() error { return nil }
