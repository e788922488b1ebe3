//go:build node && linux

package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// upgrade applies the manifests of this version over the previous release, as an administrator
// does. The trust root, the policy and the signed image are older than the upgrade.
func (b *bed) upgrade(t *testing.T) {
	b.sign(t, signedTag, "ci", "qa")
	must(t, b.Create(t.Context(), b.trustRoot()))
	must(t, b.Create(t.Context(), b.policy()))
	b.inForce(t)
	b.reached(t)
	l := b.startLoad(t)
	b.apply(t, b.Operators[1])
	b.rolledOut(t, b.Operators[1])
	l.finish(t)
	b.nothingForbidden(t)
}

// certificate deletes the Secret of the serving certificate, which must change nothing, and then
// replaces the certificate.
func (b *bed) certificate(t *testing.T) {
	key := client.ObjectKey{Namespace: own, Name: certs.SecretName}
	before := &corev1.Secret{}
	must(t, b.Get(t.Context(), key, before))
	l := b.startLoad(t)

	must(t, b.Delete(t.Context(), before))
	after := &corev1.Secret{}
	b.await(t, "the Secret to be created again", func(ctx context.Context) error { return b.Get(ctx, key, after) })
	if !bytes.Equal(after.Data[corev1.TLSCertKey], before.Data[corev1.TLSCertKey]) {
		t.Error("got a new certificate in the Secret, want the one that is served")
	}
	b.serves(t, before.Data[corev1.TLSCertKey])

	ca, err := tlstest.NewCA("Another CA")
	must(t, err)
	fresh, err := ca.Issue(pkix.Name{CommonName: "another"}, "countersign-webhook."+own+".svc")
	must(t, err)
	b.change(t, key, func(s *corev1.Secret) {
		s.Annotations = nil
		s.Data = map[string][]byte{
			corev1.TLSCertKey: fresh.CertPEM, corev1.TLSPrivateKeyKey: fresh.KeyPEM, "ca.crt": ca.PEM,
		}
	})
	const trusted = "countersign.dev/trusted-since"
	b.await(t, "the webhook configurations to contain both CAs", func(ctx context.Context) error {
		if err := b.Get(ctx, key, after); err != nil {
			return err
		}
		if after.Annotations[trusted] == "" {
			return errors.New("got no annotation " + trusted)
		}
		return nil
	})
	b.serves(t, before.Data[corev1.TLSCertKey])
	b.say("  both CAs are trusted; backdating that by eleven minutes")
	b.change(t, key, func(s *corev1.Secret) {
		s.Annotations[trusted] = time.Now().Add(-certs.Uptake - time.Minute).UTC().Format(time.RFC3339)
	})
	b.serves(t, fresh.CertPEM)
	// The API server keeps its connections when the certificate changes. It opens new ones to new
	// replicas.
	_, err = b.kubectl("rollout", "restart", "--namespace="+own, "deployment/"+manager)
	must(t, err)
	b.rolledOut(t, b.Operators[1])
	b.serves(t, fresh.CertPEM)
	l.finish(t)
	b.nothingForbidden(t)
}

// change updates a Secret. It retries a conflict with the leader.
func (b *bed) change(t *testing.T, key client.ObjectKey, edit func(*corev1.Secret)) {
	t.Helper()
	b.await(t, "an edit of "+key.Name, func(ctx context.Context) error {
		s := &corev1.Secret{}
		if err := b.Get(ctx, key, s); err != nil {
			return err
		}
		edit(s)
		return b.Update(ctx, s)
	})
}

// serves waits until every replica serves with a certificate.
func (b *bed) serves(t *testing.T, certPEM []byte) {
	t.Helper()
	want := certificate(t, certPEM)
	b.await(t, "every replica to serve with the certificate", func(ctx context.Context) error {
		pods, err := b.replicas(ctx)
		if err != nil {
			return err
		}
		if len(pods) != 3 {
			return fmt.Errorf("got %d replicas, want 3", len(pods))
		}
		for _, p := range pods {
			// The handshake does not verify the certificate: the test compares it.
			dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
			conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(p.Status.PodIP, "9443"))
			if err != nil {
				return err
			}
			served := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
			conn.Close()
			if !served.Equal(want) {
				return fmt.Errorf("%s: got certificate %s, want %s", p.Name, served.SerialNumber, want.SerialNumber)
			}
		}
		return nil
	})
}

func certificate(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("got no certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return c
}
