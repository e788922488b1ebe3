package certificate

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/certs"
)

// Serving is the serving certificate of the webhook: the operator's own, or a mounted one.
type Serving interface {
	// CABundle returns the bundle for the webhook configurations: see gate.CertificateAuthority.
	CABundle(ctx context.Context, configured ...[]byte) ([]byte, time.Duration, error)
	// GetCertificate returns the certificate for a TLS handshake.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready returns an error while there is no certificate.
	Ready() error
}

// Options say where the certificate comes from.
type Options struct {
	// Dir is the folder of a mounted certificate. Where Dir is empty, or the folder holds no
	// certificate, the operator makes its own for Host, in a Secret of Namespace.
	Dir, Namespace, Host string
}

// New returns the mounted certificate where there is one, and otherwise the operator's own.
func New(config *rest.Config, scheme *runtime.Scheme, from Options) (Serving, error) {
	if from.Dir != "" {
		if mounted, err := certs.NewMounted(from.Dir, clock.RealClock{}); mounted != nil || err != nil {
			return mounted, err
		}
	}
	direct, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return &certs.Own{Client: direct, Namespace: from.Namespace, Host: from.Host, Clock: clock.RealClock{}}, nil
}

// SetupWithManager makes the replica follow changes of its certificate, and adds its readiness
// check.
func SetupWithManager(mgr ctrl.Manager, serving Serving) error {
	err := mgr.AddReadyzCheck("certificate", func(*http.Request) error { return serving.Ready() })
	switch serving := serving.(type) {
	case *certs.Own:
		return errors.Join(err, (&Reconciler{Client: mgr.GetClient(), Certificate: serving}).SetupWithManager(mgr))
	case *certs.Mounted:
		return errors.Join(err, mgr.Add(serving))
	}
	return err
}
