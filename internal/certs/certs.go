// Package certs provides the serving certificate of the webhook, and the CA bundle by which the API
// server verifies it. By default the package makes both and keeps them in a Secret of the
// operator's namespace, so that every replica serves the same certificate. A mounted certificate
// replaces them where there is one. A private key is written to that Secret only, and never logged.
// The key of a CA is discarded once it has signed its one certificate.
//
// A certificate is replaced together with its CA, and the two overlap. First the new CA is added to
// the bundle. Once both webhook configurations hold it, and API servers have had time to load it,
// the new certificate is served. A day later the old CA leaves the bundle. Each step is derived
// from the Secret and the time, so it does not matter which replica leads or when one ends. Only
// the leader writes. A certificate that API servers may not know yet is never served while there is
// another.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=secrets,resourceNames=countersign-webhook-certificate,verbs=update

const (
	// SecretName is the Secret, in the operator's namespace, that holds the operator's own
	// certificate.
	SecretName = "countersign-webhook-certificate"

	// Uptake is how long API servers may take to load a CA bundle, and how far the clocks of
	// replicas may differ.
	Uptake = 10 * time.Minute
	// Retention is how long an old CA stays in the bundle after its certificate may be replaced.
	// Only a replica that has missed every change for that long can be refused.
	Retention = 24 * time.Hour

	// attention bounds the time between two reads of the Secret: a clock may be set, and a machine
	// suspended.
	attention = time.Hour
)

// Own is the certificate that the operator makes. Every replica serves it; only the leader calls
// CABundle.
type Own struct {
	// Client reads past the cache: a write must rest on the current Secret.
	Client client.Client
	// Namespace is the operator's own.
	Namespace string
	// Host is the name or address by which the API server reaches the webhook.
	Host  string
	Clock clock.PassiveClock

	held atomic.Pointer[held]
}

// held is the state of one replica.
type held struct {
	state
	// kept is the pair that was served before the Secret changed. The Secret may no longer have it,
	// for example after it was deleted.
	kept *pair
	// known says that the CA of the served pair is in the webhook configurations, or that the pair
	// was served before.
	known bool
}

// serving returns the newest pair where API servers know it, and otherwise an earlier pair that is
// still valid. It is never nil.
func (h *held) serving(host string, now time.Time) *pair {
	if h.inForce(now) && h.newest.current(now) { // a pair made by a wrong clock is not current
		return h.newest
	}
	for _, p := range []*pair{h.previous, h.kept} {
		if p != nil && p.good(host, now) {
			return p
		}
	}
	return h.newest
}

// GetCertificate implements tls.Config.GetCertificate. It fails until the Secret was read.
func (o *Own) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	h := o.held.Load()
	if h == nil {
		return nil, fmt.Errorf("no serving certificate yet: Secret %s/%s was not read, or the leader has not made it",
			o.Namespace, SecretName)
	}
	return &h.serving(o.Host, o.Clock.Now()).tls, nil
}

// Ready returns an error until there is a certificate that API servers may know. Where the Secret
// is missing at the start, that takes until the new CA is in the webhook configurations.
func (o *Own) Ready() error {
	h := o.held.Load()
	if h == nil {
		return errors.New("no serving certificate yet")
	}
	if !h.known {
		return errors.New("the CA of the serving certificate is not in the webhook configurations yet")
	}
	return nil
}

// Use adopts the certificate in the Secret. Where the Secret is unusable nothing changes, and the
// error says why. One goroutine at a time may call it.
func (o *Own) Use(secret *corev1.Secret) error {
	s, err := parse(secret)
	if err != nil {
		return fmt.Errorf("reading the certificate in Secret %s/%s: %w", o.Namespace, SecretName, err)
	}
	o.held.Store(o.seen(s))
	return nil
}

// seen returns the state of this replica after it has read s.
func (o *Own) seen(s *state) *held {
	now := o.Clock.Now()
	h := &held{
		state: *s, known: !s.trusted.IsZero() || !s.overlaps() || s.previous != nil && s.previous.good(o.Host, now),
	}
	if before := o.held.Load(); before != nil {
		h.kept = before.serving(o.Host, now)
		h.known = h.known || before.known
	}
	return h
}

// CABundle takes the next step of a replacement where one is due. It returns the bundle that the
// webhook configurations must hold from now on, and when to call again at the latest. configured
// are their current bundles, which must be read before the call: a bundle that rests on an older
// Secret is then older than they are, and the API server refuses it. Only the leader may call it.
// Where several do, one succeeds and the others get a conflict.
func (o *Own) CABundle(ctx context.Context, configured ...[]byte) ([]byte, time.Duration, error) {
	secret := &corev1.Secret{}
	err := o.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: SecretName}, secret)
	if client.IgnoreNotFound(err) != nil {
		return nil, 0, fmt.Errorf("reading Secret %s/%s: %w", o.Namespace, SecretName, err)
	}
	var s *state // nil: deleted, or unreadable
	if err == nil {
		if read, err := parse(secret); err == nil {
			s = read
		}
	}
	now := o.Clock.Now()
	next, err := o.step(s, configured, now)
	if err != nil {
		return nil, 0, fmt.Errorf("making a serving certificate for %s: %w", o.Host, err)
	}
	if next != s {
		if err := o.write(ctx, secret, next); err != nil {
			return nil, 0, err
		}
	}
	return next.bundlePEM(), next.wait(now), nil
}

func (o *Own) write(ctx context.Context, secret *corev1.Secret, s *state) error {
	write := o.Client.Update
	if secret.ResourceVersion == "" {
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: o.Namespace, Name: SecretName,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "countersign"}}
		secret.Type = corev1.SecretTypeTLS
		write = func(ctx context.Context, s client.Object, _ ...client.UpdateOption) error {
			return o.Client.Create(ctx, s)
		}
	}
	s.put(secret)
	err := write(ctx, secret)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("writing Secret %s/%s: %w; create the namespace, or name the operator's own with --namespace",
			o.Namespace, SecretName, err)
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s/%s: %w", o.Namespace, SecretName, err)
	}
	return nil
}

// step returns the next content of the Secret: s itself where nothing is due.
func (o *Own) step(s *state, configured [][]byte, now time.Time) (*state, error) {
	if s == nil {
		return o.remake(configured, now)
	}
	serving := o.seen(s).serving(o.Host, now)
	switch {
	case s.newest.due(o.Host, now):
		fresh, err := issue(o.Host, now)
		if err != nil {
			return nil, err
		}
		return s.replaced(fresh, serving), nil
	case !s.bundle.has(serving.ca): // the Secret was replaced while its pair was in use
		return &state{newest: s.newest, previous: serving, trusted: s.trusted, bundle: s.bundle.with(serving.ca)}, nil
	case s.trusted.IsZero() || s.trusted.After(now): // in the future where a clock was wrong
		if !allHold(configured, s.newest.ca) {
			return s, nil
		}
		stamped := *s
		stamped.trusted = now
		return &stamped, nil
	case s.overlaps() && !now.Before(s.trusted.Add(Uptake+Retention)):
		return &state{newest: s.newest, trusted: s.trusted, bundle: bundle{s.newest.ca}}, nil
	}
	return s, nil
}

// remake is step where the Secret is missing or unreadable. Replicas go on serving the pair in
// their memory. So every CA that is trusted now stays in the bundle, and the pair of this replica
// is written back.
func (o *Own) remake(configured [][]byte, now time.Time) (*state, error) {
	next := &state{}
	var served *pair
	if h := o.held.Load(); h != nil {
		served = h.serving(o.Host, now)
		next = h.replaced(h.newest, served)
	}
	if next.newest == nil || next.newest.due(o.Host, now) {
		fresh, err := issue(o.Host, now)
		if err != nil {
			return nil, err
		}
		next = next.replaced(fresh, served)
	}
	for _, text := range configured {
		next.bundle = next.bundle.with(certificates(text)...)
	}
	return next, nil
}
