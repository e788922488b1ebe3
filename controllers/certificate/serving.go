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

// Serving is what the webhook serves with: the operator's own certificate, or a mounted one.
type Serving interface {
	// CABundle returns what the webhook configurations must hold: see gate.CertificateAuthority.
	CABundle(ctx context.Context, configured ...[]byte) ([]byte, time.Duration, error)
	// GetCertificate returns the certificate to serve with.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready says why there is none yet; nil: there is one.
	Ready() error
}

// Options say where the certificate comes from.
type Options struct {
	// Dir is the folder of a mounted certificate. Where it holds none, or is empty, the operator
	// makes its own: in a Secret of Namespace, for Host.
	Dir, Namespace, Host string
}

// New returns the mounted certificate where there is one, and else the operator's own.
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

// SetupWithManager has the replica follow its certificate. It is ready once it has one.
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
