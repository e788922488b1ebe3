package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// dueIn is the time from the start of the first manager until its certificate is due. The load has
// begun by then.
const dueIn = time.Minute

// TestRotation replaces the serving certificate and its CA on three managers behind one URL, and
// creates Pods continuously. The Secret exists from the start, and its certificate becomes due by
// itself. The next steps would take ten minutes and a day: the test backdates the previous step in
// the Secret.
func TestRotation(t *testing.T) {
	t.Parallel()
	front := operator.RunBalancer(t)
	args := []string{"--webhook-url=" + front.URL}
	var first *x509.Certificate
	b := newBedAfter(t, func(b *bed) {
		b.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operator.Namespace}})
		first = b.putCertificate(t, time.Now().Add(dueIn+time.Hour-60*24*time.Hour)) // dated back an hour
	}, args...)
	r := &rotation{
		bed:      b,
		managers: []*operator.Manager{b.manager, operator.Run(t, b.kube, args...), operator.Run(t, b.kube, args...)},
	}
	for _, m := range r.managers {
		front.Add(m)
	}
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	r.serve(t, "the certificate of the start", func(c *x509.Certificate) bool { return c.Equal(first) })
	b.admitted(t, pod(production, gun+":v1"))
	secret, err := r.secret(t.Context())
	must(t, err)
	if at := certificates(secret.Data["ca.crt"]); len(at) != 1 {
		t.Log("the certificate was due before the load began")
	}

	load := r.loaded(t, gun)
	t.Run("new CA in the bundle", func(t *testing.T) {
		r.bundles(t, 2)
		r.serve(t, "the certificate that API servers trust", func(c *x509.Certificate) bool { return c.Equal(first) })
		r.date(t, 0) // waits for the annotation that both configurations contain the CA
		load.more(t)
		r.serve(t, "the certificate that API servers trust", func(c *x509.Certificate) bool { return c.Equal(first) })
	})
	t.Run("new certificate served", func(t *testing.T) {
		r.date(t, certs.Uptake)
		r.serve(t, "the new certificate", func(c *x509.Certificate) bool { return !c.Equal(first) })
		r.bundles(t, 2)
		load.more(t)
	})
	second, err := r.served(t.Context(), r.managers[0])
	must(t, err)
	t.Run("old CA gone", func(t *testing.T) {
		r.date(t, certs.Uptake+certs.Retention)
		r.bundles(t, 1)
		load.more(t)
	})
	t.Run("Secret deleted", func(t *testing.T) {
		before, err := r.secret(t.Context())
		must(t, err)
		must(t, b.Delete(t.Context(), before))
		poll.Await(t, "another Secret", func() error {
			s, err := r.secret(t.Context())
			if err == nil && s.UID == before.UID {
				err = errors.New("got the old one")
			}
			return err
		})
		r.date(t, 0)
		r.serve(t, "the same certificate as before", func(c *x509.Certificate) bool { return c.Equal(second) })
		load.more(t)
	})
	load.stop(t)
	if n := load.others.Load(); n < 100 {
		t.Errorf("got %d rounds of handshakes, want at least 100", n)
	}
}

// rotation is a bed with several managers whose certificates are replaced.
type rotation struct {
	*bed
	managers []*operator.Manager
}

// putCertificate creates the Secret with a certificate that an operator would have made at a given
// time, and returns the certificate.
func (b *bed) putCertificate(t *testing.T, made time.Time) *x509.Certificate {
	t.Helper()
	past := &certs.Own{
		Client: b.Client, Namespace: operator.Namespace, Host: "127.0.0.1",
		Clock: clocktesting.NewFakePassiveClock(made),
	}
	_, _, err := past.CABundle(t.Context())
	must(t, err)
	s, err := (&rotation{bed: b}).secret(t.Context())
	must(t, err)
	return certificates(s.Data[corev1.TLSCertKey])[0]
}

// secret returns the Secret that holds the certificate and its CA.
func (r *rotation) secret(ctx context.Context) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	return s, r.Get(ctx, client.ObjectKey{Namespace: operator.Namespace, Name: certs.SecretName}, s)
}

// date waits until the leader has recorded since when both configurations contain the newest CA,
// and backdates that time.
func (r *rotation) date(t *testing.T, back time.Duration) {
	t.Helper()
	const annotation = "countersign.dev/trusted-since"
	poll.Await(t, "the annotation that both configurations contain the CA", func() error {
		s, err := r.secret(t.Context())
		switch {
		case err != nil:
			return err
		case s.Annotations[annotation] == "":
			return errors.New("got no annotation")
		}
		if back == 0 {
			return nil
		}
		s.Annotations[annotation] = time.Now().Add(-back - time.Second).UTC().Format(time.RFC3339)
		return r.Update(t.Context(), s)
	})
}

// bundles waits until both configurations contain the wanted number of CAs.
func (r *rotation) bundles(t *testing.T, want int) {
	t.Helper()
	poll.Await(t, fmt.Sprintf("%d CAs in both configurations", want), func() error {
		bundles, err := r.configured(t.Context())
		for _, bundle := range bundles {
			if got := len(certificates(bundle)); got != want {
				err = errors.Join(err, fmt.Errorf("got %d in one", got))
			}
		}
		return err
	})
}

// configured returns the CA bundles of both webhook configurations.
func (r *rotation) configured(ctx context.Context) ([][]byte, error) {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	key := client.ObjectKey{Name: "countersign"}
	if err := errors.Join(r.Get(ctx, key, mutating), r.Get(ctx, key, validating)); err != nil {
		return nil, err
	}
	return [][]byte{mutating.Webhooks[0].ClientConfig.CABundle, validating.Webhooks[0].ClientConfig.CABundle}, nil
}

// certificates parses the certificates in a PEM text.
func certificates(text []byte) (found []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// serve waits until every manager serves a wanted certificate.
func (r *rotation) serve(t *testing.T, what string, want func(*x509.Certificate) bool) {
	t.Helper()
	for i, m := range r.managers {
		poll.Await(t, what, func() error {
			c, err := r.served(t.Context(), m)
			if err == nil && !want(c) {
				err = fmt.Errorf("got certificate %s of %s from manager %d", c.SerialNumber, c.Issuer, i)
			}
			return err
		})
	}
}

// served returns the certificate that a manager serves.
func (r *rotation) served(ctx context.Context, m *operator.Manager) (*x509.Certificate, error) {
	state, err := handshake(ctx, m, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return state.PeerCertificates[0], nil
}

// handshake connects to a manager's webhook server over TLS, and returns the connection's state.
func handshake(ctx context.Context, m *operator.Manager, config *tls.Config) (tls.ConnectionState, error) {
	u, err := url.Parse(m.WebhookURL)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	config.MinVersion = tls.VersionTLS12
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 20 * time.Second}, Config: config}).DialContext(ctx,
		"tcp", u.Host)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// loaded creates Pods continuously. It also connects to every manager, as an API server does, with
// the CA bundle of each configuration.
func (r *rotation) loaded(t *testing.T, gun string) *load {
	t.Helper()
	l := r.load(t, gun, nil)
	for _, m := range r.managers {
		l.repeat(&l.others, func(ctx context.Context) error {
			bundles, err := r.configured(ctx)
			for _, bundle := range bundles {
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(bundle)
				if _, refused := handshake(ctx, m, &tls.Config{RootCAs: roots}); refused != nil {
					err = errors.Join(err, refused)
				}
			}
			return err
		})
	}
	return l
}
