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

// reread is the interval at which the files of a mounted certificate are read. A file system event
// causes a read, too.
const reread = 10 * time.Second

// Mounted is a certificate in a folder that another program maintains: tls.crt and tls.key, and
// optionally the CA bundle ca.crt. Each file is read again when it changes. While the new content
// is unusable, the old one stays.
//
// A kubelet takes a minute or two to mount a change, and kubelets do so at different times. So
// where the CA is replaced as well, the two overlap here, too: a certificate is served once this
// replica has seen its CA in ca.crt for Uptake, and a CA that has left ca.crt stays in the bundle
// for Retention.
type Mounted struct {
	*certwatcher.CertWatcher
	dir   string
	clock clock.PassiveClock

	mu      sync.Mutex
	serving *tls.Certificate
	cas     []sighting
	led     bool // CABundle was called
}

// sighting is a CA that is or was in ca.crt.
type sighting struct {
	ca *x509.Certificate
	// since is when the CA was first seen; zero: at the start.
	since time.Time
	// left is when the CA was first missing; zero: it is in ca.crt.
	left time.Time
}

// NewMounted reads the certificate in a folder. It returns nil where the folder has no tls.crt.
// Changes are read while Start runs.
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

// Start reads changes until ctx ends. It returns an error where it cannot watch the files.
func (m *Mounted) Start(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer stop()
	reading.Go(func() {
		wait.UntilWithContext(ctx, func(context.Context) {
			_, _ = m.look()              // the leader reports the error
			_, _ = m.GetCertificate(nil) // switches to the next certificate also without clients
		}, reread)
	})
	return m.CertWatcher.Start(ctx)
}

// GetCertificate implements tls.Config.GetCertificate. It returns the certificate in the folder
// once API servers know its CA, and until then the previous certificate while that is valid.
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

// Newest returns the certificate in the folder. It is for servers whose clients read the CA from
// the folder, and not from the webhook configurations.
func (m *Mounted) Newest(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.CertWatcher.GetCertificate(hello)
}

// known reports whether API servers had time to load a CA of the certificate. Where ca.crt holds no
// CA, they trust the roots of their systems.
func (m *Mounted) known(c *tls.Certificate) bool {
	there := slices.ContainsFunc(m.cas, func(s sighting) bool { return s.left.IsZero() })
	return !there ||
		m.verified(c, func(s sighting) bool { return s.since.IsZero() || !m.clock.Now().Before(s.since.Add(Uptake)) })
}

// good reports whether the certificate is valid for a client that trusts the bundle.
func (m *Mounted) good(c *tls.Certificate) bool {
	return m.verified(c, func(sighting) bool { return true })
}

// verified reports whether the certificate chains to a CA that by accepts.
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

// CABundle returns ca.crt and the CAs that have left it within Retention, and when to call again.
// It returns nothing where there is no ca.crt. When this replica begins to lead, the CAs in the
// webhook configurations stay in the bundle: the replica has not seen earlier versions of ca.crt.
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

// keep retains CAs that may have been in ca.crt before.
func (m *Mounted) keep(cas bundle) {
	for _, ca := range cas {
		if !slices.ContainsFunc(m.cas, func(s sighting) bool { return s.ca.Equal(ca) }) {
			m.cas = append(m.cas, sighting{ca: ca, left: m.clock.Now()})
		}
	}
}

// look reads ca.crt, and notes which CAs have appeared and which have left.
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

// Ready returns nil: NewMounted has read a certificate.
func (m *Mounted) Ready() error { return nil }
