package certs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// reread is how often the files of a mounted certificate are read, besides when the file system reports a change.
const reread = 10 * time.Second

// Mounted is a certificate in a folder that somebody else keeps, and replaces in time: tls.crt and tls.key, with ca.crt as the
// bundle where it is there. Each is read again when it changes; while that cannot be used, the one before stays.
type Mounted struct {
	*certwatcher.CertWatcher
	dir string
}

// NewMounted reads the certificate in a folder, and returns nil if the folder holds no tls.crt. Changes are taken up while
// Start runs.
func NewMounted(dir string) (*Mounted, error) {
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
	m := &Mounted{CertWatcher: watcher.WithWatchInterval(reread), dir: dir}
	_, err = m.bundle()
	return m, err
}

// CABundle returns what ca.crt holds, nothing where it is not there, and when to ask again. What the webhook configurations hold
// now makes no difference: the overlap of an old CA with a new one is the business of whoever keeps the folder.
func (m *Mounted) CABundle(context.Context, ...[]byte) ([]byte, time.Duration, error) {
	bundle, err := m.bundle()
	return bundle, reread, err
}

func (m *Mounted) bundle() ([]byte, error) {
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
