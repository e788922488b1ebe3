package kubeserver

import (
	"fmt"
	"path/filepath"
	"testing"

	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// RunReportCRDs installs the CRDs of PolicyReport and Report, from the modules that hack/reports
// pins. It returns a function that deletes them.
func RunReportCRDs(t testing.TB, k *Server) (uninstall func()) {
	t.Helper()
	return runModuleCRDs(t, k, "reports", map[string][]string{
		"github.com/kyverno/kyverno":         {"config/crds/policyreport/wgpolicyk8s.io_policyreports.yaml"},
		"github.com/openreports/reports-api": {"config/crd/openreports.io_reports.yaml"},
	})
}

// RunNeighbourCRDs installs the CRDs of cert-manager and the Prometheus operator that
// config/components uses, from the modules that hack/neighbours pins. It returns a function that
// deletes them.
func RunNeighbourCRDs(t testing.TB, k *Server) (uninstall func()) {
	t.Helper()
	const monitoring = "example/prometheus-operator-crd/monitoring.coreos.com_"
	return runModuleCRDs(t, k, "neighbours", map[string][]string{
		"github.com/cert-manager/cert-manager": {
			"deploy/crds/cert-manager.io_certificates.yaml", "deploy/crds/cert-manager.io_issuers.yaml",
		},
		"github.com/prometheus-operator/prometheus-operator": {
			monitoring + "servicemonitors.yaml", monitoring + "prometheusrules.yaml",
		},
	})
}

// runModuleCRDs installs CRDs. files has their paths, by the module that contains them; the module
// hack/<pins> pins the versions.
func runModuleCRDs(t testing.TB, k *Server, pins string, files map[string][]string) (uninstall func()) {
	t.Helper()
	var paths []string
	for module, of := range files {
		dir, err := build.ModuleSource(t.Context(), pins, module)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range of {
			paths = append(paths, filepath.Join(dir, path))
		}
	}
	options := envtest.CRDInstallOptions{Paths: paths, ErrorIfPathMissing: true, MaxTime: process.StartTimeout}
	awaitDeleted(t, k, options)
	crds, err := envtest.InstallCRDs(k.Config, options)
	if err != nil || len(crds) != len(paths) {
		t.Fatalf("installing the CRDs that hack/%s pins: %d of %d installed (%v)", pins, len(crds), len(paths), err)
	}
	return func() {
		t.Helper()
		if err := envtest.UninstallCRDs(k.Config, options); err != nil {
			t.Fatalf("deleting the CRDs that hack/%s pins: %v", pins, err)
		}
	}
}

// awaitDeleted waits until no CRD of the options is being deleted. The API server deletes a CRD in
// the background, and would delete one that is installed meanwhile too.
func awaitDeleted(t testing.TB, k *Server, options envtest.CRDInstallOptions) {
	t.Helper()
	if err := envtest.ReadCRDFiles(&options); err != nil {
		t.Fatal(err)
	}
	c, err := apiextensionsclient.NewForConfig(k.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range options.CRDs {
		poll.Await(t, "the deletion of "+crd.Name, func() error {
			found, err := c.ApiextensionsV1().CustomResourceDefinitions().Get(t.Context(), crd.Name,
				metav1.GetOptions{})
			if err == nil && found.DeletionTimestamp != nil {
				return fmt.Errorf("it is being deleted: %v", found.Status.Conditions)
			}
			return client.IgnoreNotFound(err)
		})
	}
}

// AwaitKindsGone waits until API discovery no longer lists our kinds. It lists them for a moment
// after the deletion of their CRDs, which misleads a test that installs the CRDs again.
func AwaitKindsGone(t testing.TB, k *Server) {
	t.Helper()
	served, err := discovery.NewDiscoveryClientForConfig(k.Config)
	if err != nil {
		t.Fatal(err)
	}
	poll.Await(t, "our kinds to be served no more", func() error {
		if _, err := served.ServerResourcesForGroupVersionWithContext(t.Context(),
			v1alpha1.GroupVersion.String()); !apierrors.IsNotFound(err) {
			return fmt.Errorf("got %w, want not found", err)
		}
		return nil
	})
}
