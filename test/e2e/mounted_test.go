package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// TestMounted replaces a mounted certificate, and its CA, on three managers behind one URL, and
// creates Pods continuously. It writes the managers' folders one after the other, as kubelets do,
// with the files of a Secret of cert-manager.
func TestMounted(t *testing.T) {
	t.Parallel()
	front := operator.RunBalancer(t)
	m := &mounted{front: front, binary: buildManager(t), ca: newCA(t)}
	first := m.issue(t)
	m.rotation = &rotation{bed: newBedWith(t, kubeserver.Options{}, func(b *bed) *operator.Manager {
		m.rotation = &rotation{bed: b}
		for range 3 {
			m.managers = append(m.managers, m.run(t, first))
		}
		return m.managers[0]
	}), managers: m.managers}
	gun := m.repository(t, "ci", "qa")
	m.sign(t, gun, "v1", 1, "ci", "qa")
	m.serve(t, "the certificate of the start", first.is)
	m.bundles(t, 1)
	m.admitted(t, pod(production, gun+":v1"))
	load := m.loaded(t, gun)
	var last *secret
	renewed := func(t *testing.T, bundles int) {
		last = m.issue(t)
		m.replace(t, last)
		m.serve(t, "the renewed certificate", last.is)
		m.bundles(t, bundles)
		load.more(t)
	}
	t.Run("renewed", func(t *testing.T) { renewed(t, 1) })
	t.Run("CA renewed, its key kept", func(t *testing.T) {
		var err error
		m.ca, err = m.ca.Renew()
		must(t, err)
		renewed(t, 2) // served at once: the old CA verifies it too
	})
	t.Run("CA replaced", func(t *testing.T) {
		m.ca = newCA(t)
		next := m.issue(t)
		m.replace(t, next)
		m.bundles(t, 3)
		m.serve(t, "what API servers know", last.is)
		load.more(t)
		late := m.run(t, next)
		m.managers = append(m.managers, late)
		c, err := m.served(t.Context(), late)
		must(t, err)
		if !next.is(c) {
			t.Errorf("a new replica: got certificate %s, want the only one that it has", c.SerialNumber)
		}
		bundles, err := m.configured(t.Context())
		must(t, err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundles[1])
		_, err = handshake(t.Context(), late, &tls.Config{RootCAs: roots})
		must(t, err)
		load.more(t)
	})
	load.stop(t)
	if n := load.others.Load(); n < 100 {
		t.Errorf("got %d rounds of handshakes, want at least 100", n)
	}
	t.Run("the operator's own certificate, and back", func(t *testing.T) { m.goOver(t, gun) })
}

// goOver replaces all managers with one that makes its own certificate. Then it replaces that
// manager with one that has a mounted certificate of a new CA.
func (m *mounted) goOver(t *testing.T, gun string) {
	t.Helper()
	stop := func() {
		for _, manager := range m.managers {
			must(t, manager.Stop())
		}
	}
	stop()
	own := operator.RunWith(t, m.kube, operator.Options{
		Binary: m.binary, Args: []string{"--webhook-url=" + m.front.URL},
	})
	m.front.Add(own)
	m.managers = []*operator.Manager{own}
	m.answers(t, gun)
	stop()
	m.ca = newCA(t)
	m.managers = []*operator.Manager{m.run(t, m.issue(t))}
	m.answers(t, gun)
}

// answers waits until the API server trusts the serving certificate: a signed Pod is admitted, and
// an unsigned one denied.
func (m *mounted) answers(t *testing.T, gun string) {
	t.Helper()
	m.awaitAdmitted(t, "a signed Pod to be admitted", production, gun+":v1")
	m.denied(t, pod(production, gun+":unsigned"), http.StatusForbidden)
}

// mounted is a rotation of the certificates in the managers' folders.
type mounted struct {
	*rotation
	front  *operator.Balancer
	binary string
	ca     *tlstest.CA
	dirs   []string
}

// secret is a certificate with its CA bundle, as files of a mounted Secret.
type secret struct {
	*tlstest.Certificate
	ca []byte
}

func (l *secret) is(c *x509.Certificate) bool { return c.Equal(l.TLS.Leaf) }

// newCA makes a CA. All have the same name.
func newCA(t *testing.T) *tlstest.CA {
	t.Helper()
	ca, err := tlstest.NewCA("countersign webhook CA")
	must(t, err)
	return ca
}

func buildManager(t *testing.T) string {
	t.Helper()
	binary, err := operator.Build(t.Context(), t.TempDir(), true)
	must(t, err)
	return binary
}

func (m *mounted) issue(t *testing.T) *secret {
	t.Helper()
	c, err := m.ca.Issue(pkix.Name{}, "127.0.0.1")
	must(t, err)
	c.TLS.Leaf = certificates(c.CertPEM)[0]
	return &secret{Certificate: c, ca: m.ca.PEM}
}

// run runs another manager with its own folder.
func (m *mounted) run(t *testing.T, l *secret) *operator.Manager {
	t.Helper()
	dir := t.TempDir()
	must(t, l.mount(dir))
	manager := operator.RunWith(t, m.kube, operator.Options{
		Binary: m.binary, Args: []string{"--webhook-url=" + m.front.URL, "--cert-dir=" + dir, "--metrics-secure"},
	})
	m.front.Add(manager)
	m.dirs = append(m.dirs, dir)
	return manager
}

// replace mounts a certificate in one folder after the other. Each time it waits until the manager
// serves its metrics with the certificate, which happens as soon as the manager has read it.
func (m *mounted) replace(t *testing.T, l *secret) {
	t.Helper()
	for i, manager := range m.managers {
		must(t, l.mount(m.dirs[i]))
		u, err := url.Parse(manager.MetricsURL)
		must(t, err)
		poll.Await(t, "metrics with the certificate", func() error {
			// The handshake does not verify the certificate: the test compares it.
			state, err := handshake(t.Context(), &operator.Manager{WebhookURL: "https://" + u.Host},
				&tls.Config{InsecureSkipVerify: true})
			if err == nil && !l.is(state.PeerCertificates[0]) {
				err = fmt.Errorf("got certificate %s from manager %d", state.PeerCertificates[0].SerialNumber, i)
			}
			return err
		})
	}
}

// mount writes a folder as a kubelet mounts a Secret: the files are symbolic links through ..data,
// which is replaced atomically.
func (l *secret) mount(dir string) error {
	version, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	const data = "..data"
	before, err := os.Readlink(filepath.Join(dir, data))
	first := errors.Is(err, os.ErrNotExist)
	if err != nil && !first {
		return err
	}
	for name, text := range map[string][]byte{
		corev1.TLSCertKey: l.CertPEM, corev1.TLSPrivateKeyKey: l.KeyPEM, "ca.crt": l.ca,
	} {
		err := os.WriteFile(filepath.Join(version, name), text, 0o600)
		if first {
			err = errors.Join(err, os.Symlink(filepath.Join(data, name), filepath.Join(dir, name)))
		}
		if err != nil {
			return err
		}
	}
	next := filepath.Join(dir, "..data_tmp")
	if err := errors.Join(os.Symlink(filepath.Base(version), next),
		os.Rename(next, filepath.Join(dir, data))); err != nil || first {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, before))
}
