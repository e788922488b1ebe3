// Package certs provides the certificate with which the webhook serves, and the CA bundle by which
// the API server knows it. By default both are made here and kept in a Secret of the operator's
// namespace, so that every replica serves with the same; a mounted certificate takes their place
// where there is one. A private key never leaves the process but for that Secret, and is never
// logged; the key of a CA is thrown away once it has signed its one certificate.
//
// A certificate is replaced together with its CA, and the two overlap: the new CA is added to the
// bundle first; when both webhook configurations hold it and API servers have had the time to take
// it up, the new certificate is served; the old CA leaves the bundle a day later. Each step is
// derived from the Secret and the time, so that it does not matter which replica leads, or when one
// ends. Only the leader writes. A certificate that no API server may know yet is never served while
// there is another.
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
	// SecretName is the Secret, in the operator's namespace, that holds the certificate made here.
	SecretName = "countersign-webhook-certificate"

	// Uptake is how long API servers are given to take up a CA bundle, and replicas' clocks to
	// differ.
	Uptake = 10 * time.Minute
	// Retention is how long an old CA stays in the bundle when its certificate need no longer be
	// served: a replica that hears of nothing for so long is the only one that can be refused.
	Retention = 24 * time.Hour

	// attention bounds the time between two looks at the Secret, for clocks may be set and machines
	// suspended.
	attention = time.Hour
)

// Own is the certificate that the operator makes for itself. Every replica serves with it; CABundle
// is for the leader.
type Own struct {
	// Client reads past the cache: what is written rests on what the Secret holds, and not on what
	// it held.
	Client client.Client
	// Namespace is the operator's own.
	Namespace string
	// Host is the name or address by which the API server reaches the webhook.
	Host  string
	Clock clock.PassiveClock

	held atomic.Pointer[held]
}

// held is what a replica knows.
type held struct {
	state
	// kept is what was served before the Secret changed: it may say nothing of a certificate that
	// was in use, when it was deleted for example.
	kept *pair
	// known says that what is served is in the webhook configurations, or has been served before.
	known bool
}

// serving returns the newest certificate where the API servers know it, and else what was served
// before as long as it is good. It is never nil.
func (h *held) serving(host string, now time.Time) *pair {
	if h.inForce(now) && h.newest.current(now) { // it is not where it was made by a clock that was wrong
		return h.newest
	}
	for _, p := range []*pair{h.previous, h.kept} {
		if p != nil && p.good(host, now) {
			return p
		}
	}
	return h.newest
}

// GetCertificate is for tls.Config. It fails until the Secret was read.
func (o *Own) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	h := o.held.Load()
	if h == nil {
		return nil, fmt.Errorf("no serving certificate yet: Secret %s/%s was not read, or the leader has not made it",
			o.Namespace, SecretName)
	}
	return &h.serving(o.Host, o.Clock.Now()).tls, nil
}

// Ready returns an error while there is nothing to serve with that API servers may know. Where a
// replica starts without a Secret, that is so for the moment between the making of a new one and
// its CA's place in the webhook configurations.
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

// Use takes up what the Secret holds. Where that cannot be used, everything stays as it is, and the
// error says why. It is called by one goroutine at a time.
func (o *Own) Use(secret *corev1.Secret) error {
	s, err := parse(secret)
	if err != nil {
		return fmt.Errorf("reading the certificate in Secret %s/%s: %w", o.Namespace, SecretName, err)
	}
	o.held.Store(o.seen(s))
	return nil
}

// seen is what this replica holds once it knows of s.
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

// CABundle brings the Secret one step further where a step is due, and returns the bundle that the
// webhook configurations must hold from now on, and when to ask again at the latest. configured are
// the bundles that they hold now, read before this is called: a bundle that rests on an older
// Secret is then older than they are, and the API server refuses it. Only the leader may call it.
// Of several that do, one prevails, and the others get a conflict.
func (o *Own) CABundle(ctx context.Context, configured ...[]byte) ([]byte, time.Duration, error) {
	secret := &corev1.Secret{}
	err := o.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: SecretName}, secret)
	if client.IgnoreNotFound(err) != nil {
		return nil, 0, fmt.Errorf("reading Secret %s/%s: %w", o.Namespace, SecretName, err)
	}
	var s *state // nil: deleted, or spoilt
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

// step returns what the Secret must hold next: s itself where nothing is due.
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
	case !s.bundle.has(serving.ca): // somebody replaced a Secret that was in use
		return &state{newest: s.newest, previous: serving, trusted: s.trusted, bundle: s.bundle.with(serving.ca)}, nil
	case s.trusted.IsZero() || s.trusted.After(now): // the latter when a clock was wrong
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

// remake is the step where there is no Secret, or none that can be read. Replicas go on with what
// they hold in memory, so that every CA that is trusted now stays so, and what this one holds is
// put back.
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
