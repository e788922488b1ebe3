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

// dueIn is how long after the start of the first manager its certificate is due: the load has begun
// by then.
const dueIn = time.Minute

// TestRotation replaces the serving certificate and its CA on three managers behind one URL, while
// Pods are created all the time. The Secret is there from the start, and comes due by itself; what
// then takes ten minutes and a day is brought about by dating the step before it back in the
// Secret.
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
		t.Log("the certificate was due before the load has begun")
	}

	load := r.loaded(t, gun)
	t.Run("new CA in the bundle", func(t *testing.T) {
		r.bundles(t, 2)
		r.serve(t, "what API servers know", func(c *x509.Certificate) bool { return c.Equal(first) })
		r.date(t, 0) // waits for the note that both configurations hold it
		load.more(t)
		r.serve(t, "what API servers know", func(c *x509.Certificate) bool { return c.Equal(first) })
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
				err = errors.New("still the old one")
			}
			return err
		})
		r.date(t, 0)
		r.serve(t, "what they have served before", func(c *x509.Certificate) bool { return c.Equal(second) })
		load.more(t)
	})
	load.stop(t)
	if load.others.Load() < 100 {
		t.Error("there were few handshakes")
	}
}

type rotation struct {
	*bed
	managers []*operator.Manager
}

// putCertificate puts what an operator has made at a time into the Secret.
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

// date waits until the leader has noted since when both configurations hold the newest CA, and
// dates that back.
func (r *rotation) date(t *testing.T, back time.Duration) {
	t.Helper()
	const annotation = "countersign.dev/trusted-since"
	poll.Await(t, "the note that both configurations hold the CA", func() error {
		s, err := r.secret(t.Context())
		switch {
		case err != nil:
			return err
		case s.Annotations[annotation] == "":
			return errors.New("not noted")
		}
		if back == 0 {
			return nil
		}
		s.Annotations[annotation] = time.Now().Add(-back - time.Second).UTC().Format(time.RFC3339)
		return r.Update(t.Context(), s)
	})
}

// bundles waits until both configurations hold so many CAs.
func (r *rotation) bundles(t *testing.T, want int) {
	t.Helper()
	poll.Await(t, fmt.Sprintf("%d CAs in both configurations", want), func() error {
		bundles, err := r.configured(t.Context())
		for _, bundle := range bundles {
			if got := len(certificates(bundle)); got != want {
				err = errors.Join(err, fmt.Errorf("one holds %d", got))
			}
		}
		return err
	})
}

func (r *rotation) configured(ctx context.Context) ([][]byte, error) {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	key := client.ObjectKey{Name: "countersign"}
	if err := errors.Join(r.Get(ctx, key, mutating), r.Get(ctx, key, validating)); err != nil {
		return nil, err
	}
	return [][]byte{mutating.Webhooks[0].ClientConfig.CABundle, validating.Webhooks[0].ClientConfig.CABundle}, nil
}

func certificates(text []byte) (found []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// serve waits until every manager serves a certificate.
func (r *rotation) serve(t *testing.T, what string, want func(*x509.Certificate) bool) {
	t.Helper()
	for i, m := range r.managers {
		poll.Await(t, what, func() error {
			c, err := r.served(t.Context(), m)
			if err == nil && !want(c) {
				err = fmt.Errorf("manager %d serves %s of %s", i, c.SerialNumber, c.Issuer)
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

// loaded has Pods created, and shakes hands with every manager as an API server does that trusts
// what one of the configurations holds.
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
