package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/cabundle"
)

// maxClientCA bounds the file of a ClientCA, in bytes.
const maxClientCA = 1 << 20

// defaultInterval is how often Start reads the file where Interval is not set.
const defaultInterval = 2 * time.Second

// ErrNoClientCA says that there is no CA to verify clients with, so that no client is verified.
var ErrNoClientCA = errors.New("the CA of client certificates cannot be read")

// ClientCA are the CAs that client certificates must chain to: the certificates in a PEM file,
// which is read again while Start runs. Where the file is unusable, no client is verified. After a
// good read a single bad one is ignored, but not a second: the program that writes the file may not
// do so atomically.
type ClientCA struct {
	// Interval is how often Start reads the file; 2 s where it is not positive.
	Interval time.Duration

	file  string
	clock clock.PassiveClock

	held atomic.Pointer[clientCAs]
}

// clientCAs is the result of a read of the file.
type clientCAs struct {
	text []byte
	pool *x509.CertPool
	err  error // the pool is nil
	// doubt is the error of the read that followed this good one.
	doubt error
}

// VerifiedClient is a verified client certificate, with the CAs that verified it and the time for
// which that holds.
type VerifiedClient struct {
	by            *clientCAs
	leaf          *x509.Certificate
	since, before time.Time
}

// NewClientCA reads the CAs in a file. Ready and the log report a failure.
func NewClientCA(file string, clock clock.PassiveClock) *ClientCA {
	c := &ClientCA{file: file, clock: clock}
	c.read()
	return c
}

// Start implements manager.Runnable: it reads the file at each interval until ctx ends.
func (c *ClientCA) Start(ctx context.Context) error {
	interval := c.Interval
	if interval <= 0 {
		interval = defaultInterval
	}
	wait.UntilWithContext(ctx, func(context.Context) { c.read() }, interval)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*ClientCA) NeedLeaderElection() bool { return false }

// Ready returns an error, which names the flag, while no client can be verified.
func (c *ClientCA) Ready() error { return c.held.Load().err }

// Verify returns nil where the client certificate, the first of shown, chains to one of the CAs, is
// for client authentication and is valid now. The other certificates are intermediates. To save
// work, the result may be passed as before with the same certificates. The error is ErrNoClientCA
// where there are no CAs.
func (c *ClientCA) Verify(shown []*x509.Certificate, before *VerifiedClient) (*VerifiedClient, error) {
	held, now := c.held.Load(), c.clock.Now()
	switch {
	case held.err != nil:
		return nil, ErrNoClientCA
	case len(shown) == 0:
		return nil, errors.New("no client certificate was shown")
	case before != nil && before.by == held && before.leaf == shown[0] && !now.Before(before.since) &&
		now.Before(before.before):
		return before, nil
	}
	intermediates := x509.NewCertPool()
	for _, cert := range shown[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: held.pool, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("the client certificate is not good: %w", err)
	}
	verified := &VerifiedClient{by: held, leaf: shown[0], since: shown[0].NotBefore, before: shown[0].NotAfter}
	for _, cert := range chains[0] {
		if cert.NotBefore.After(verified.since) {
			verified.since = cert.NotBefore
		}
		if cert.NotAfter.Before(verified.before) {
			verified.before = cert.NotAfter
		}
	}
	return verified, nil
}

// read reads the file and replaces the CAs where it has changed.
func (c *ClientCA) read() {
	text, pool, skipped, err := readClientCA(c.file)
	held := c.held.Load()
	switch {
	case err == nil && held != nil && held.err == nil && bytes.Equal(text, held.text):
		if held.doubt != nil {
			c.held.Store(&clientCAs{text: held.text, pool: held.pool})
		}
		return
	case err != nil && held != nil && held.err == nil && held.doubt == nil:
		c.held.Store(&clientCAs{text: held.text, pool: held.pool, doubt: err})
		return
	case err != nil && held != nil && held.err != nil && err.Error() == held.err.Error():
		return
	}
	c.held.Store(&clientCAs{text: text, pool: pool, err: err})
	log := ctrl.Log.WithName("admission")
	if err != nil {
		log.Error(err, "Answered no admission request from now on, because clients cannot be verified")
		return
	}
	log.Info("Read the CAs that clients are verified by", "file", c.file, "skipped", skipped)
}

// readClientCA reads the CAs in a file. skipped names the unusable ones.
func readClientCA(path string) (text []byte, pool *x509.CertPool, skipped []string, err error) {
	file, err := os.Open(path) //nolint:gosec // an administrator names it
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--webhook-client-ca: %w", err)
	}
	defer file.Close()
	text, err = io.ReadAll(io.LimitReader(file, maxClientCA+1))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--webhook-client-ca: %w", err)
	}
	if len(text) > maxClientCA {
		return nil, nil, nil, fmt.Errorf("--webhook-client-ca=%s: the file is larger than 1 MiB", path)
	}
	b, err := cabundle.Read(text, 0, nil)
	if err != nil {
		return nil, nil, nil, fmt.Errorf(
			"--webhook-client-ca=%s: %w; give it the CA that issues the API server's client certificate", path, err)
	}
	return text, b.Pool(), b.Skipped, nil
}
