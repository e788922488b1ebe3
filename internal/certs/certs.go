// Package certs provides the certificate with which the webhook serves, and the CA bundle by which the API server
// knows it. By default both are made here and kept in a Secret of the operator's namespace, so that every replica
// serves with the same; a mounted certificate takes their place where there is one. A private key never leaves the
// process but for that Secret, and is never logged.
package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=countersign-system,resources=secrets,resourceNames=countersign-webhook-certificate,verbs=update

const (
	// SecretName is the Secret, in the operator's namespace, that holds the certificate made here.
	SecretName = "countersign-webhook-certificate"
	caKey      = "ca.crt"

	// lifetime is that of the CA and of the certificate; at a start with less than renewBefore left both are made anew.
	lifetime    = 10 * 365 * 24 * time.Hour
	renewBefore = 365 * 24 * time.Hour
	// backdate allows for clocks that are behind.
	backdate = time.Hour
)

// Serving is a certificate to serve with, and what a client trusts it by.
type Serving struct {
	Certificate tls.Certificate
	// CABundle is PEM; empty where the certificate chains to the system's roots.
	CABundle []byte
}

// Mounted returns the certificate in tls.crt and tls.key of a folder, with ca.crt as the bundle where it is there, or
// nil if the folder holds no tls.crt.
func Mounted(dir string) (*Serving, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("--cert-dir: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, corev1.TLSCertKey), filepath.Join(dir, corev1.TLSPrivateKeyKey)
	if _, err := os.Stat(certFile); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the serving certificate in %s: %w", dir, err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, caKey)) //nolint:gosec // the folder is the administrator's word
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the CA bundle of the serving certificate: %w", err)
	}
	return &Serving{Certificate: pair, CABundle: bundle}, nil
}

// Ensure returns the certificate in the Secret of the namespace, and makes it first where it is missing, unreadable,
// about to expire or not for host. Of several replicas that make one at the same time, one prevails and all serve
// with it.
func Ensure(ctx context.Context, c client.Client, namespace, host string, now time.Time) (*Serving, error) {
	for {
		s, err := ensureOnce(ctx, c, namespace, host, now)
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return s, err
		}
	}
}

func ensureOnce(ctx context.Context, c client.Client, namespace, host string, now time.Time) (*Serving, error) {
	secret := &corev1.Secret{}
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: SecretName}, secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, fmt.Errorf("reading Secret %s/%s: %w", namespace, SecretName, err)
	}
	if !missing {
		if s, err := parse(secret.Data, host, now); err == nil {
			return s, nil
		}
	}
	data, err := issue(host, now)
	if err != nil {
		return nil, fmt.Errorf("making a serving certificate for %s: %w", host, err)
	}
	secret.Data = data
	if missing {
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: SecretName,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "countersign"}}
		secret.Type = corev1.SecretTypeTLS
		err = c.Create(ctx, secret)
	} else {
		err = c.Update(ctx, secret)
	}
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("writing Secret %s/%s: %w; create the namespace, or name the operator's own with --namespace", namespace, SecretName, err)
	}
	if err != nil {
		return nil, fmt.Errorf("writing Secret %s/%s: %w", namespace, SecretName, err)
	}
	return parse(data, host, now)
}

// parse reads what issue made, and refuses what is not good for host for renewBefore from now.
func parse(data map[string][]byte, host string, now time.Time) (*Serving, error) {
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data[caKey]) {
		return nil, errors.New("no CA certificate")
	}
	for _, at := range []time.Time{now, now.Add(renewBefore)} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: at}); err != nil {
			return nil, err
		}
	}
	pair.Leaf = leaf
	return &Serving{Certificate: pair, CABundle: data[caKey]}, nil
}

// issue makes a CA and a certificate for host that it signs; the CA's key is not kept.
func issue(host string, now time.Time) (map[string][]byte, error) {
	caSigner, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := template("countersign webhook CA", now)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caSigner.Public(), caSigner)
	if err != nil {
		return nil, err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := template("countersign webhook", now)
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, signer.Public(), caSigner)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		caKey:                   pemOf("CERTIFICATE", caDER),
		corev1.TLSCertKey:       pemOf("CERTIFICATE", leafDER),
		corev1.TLSPrivateKeyKey: pemOf("PRIVATE KEY", key),
	}, nil
}

func template(name string, now time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // rand.Reader does not fail
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(lifetime),
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
