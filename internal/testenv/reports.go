package testenv

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// RunReportCRDs installs the CRDs of PolicyReport and Report, as the modules that hack/reports pins carry them, and returns what
// deletes them again.
func RunReportCRDs(t testing.TB, k *Kube) (uninstall func()) {
	t.Helper()
	var paths []string
	for module, path := range map[string]string{
		"github.com/kyverno/kyverno":         "config/crds/policyreport/wgpolicyk8s.io_policyreports.yaml",
		"github.com/openreports/reports-api": "config/crd/openreports.io_reports.yaml",
	} {
		dir, err := moduleSource(t.Context(), "reports", module)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, path))
	}
	options := envtest.CRDInstallOptions{Paths: paths, ErrorIfPathMissing: true, MaxTime: startTimeout}
	crds, err := envtest.InstallCRDs(k.Config, options)
	if err != nil || len(crds) != len(paths) {
		t.Fatalf("installing the CRDs of reports: %d of %d installed (%v)", len(crds), len(paths), err)
	}
	return func() {
		t.Helper()
		if err := envtest.UninstallCRDs(k.Config, options); err != nil {
			t.Fatalf("deleting the CRDs of reports: %v", err)
		}
	}
}

// moduleSource returns the folder with the source of a module that the module under hack/ pins, downloaded where it is not
// there yet.
func moduleSource(ctx context.Context, name, module string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	out, err := goCommand(ctx, filepath.Join(root, "hack", name), "mod", "download", "-json", module)
	if err != nil {
		return "", fmt.Errorf("downloading %s: %w", module, err)
	}
	var answer struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return "", fmt.Errorf("reading where %s was downloaded to: %w", module, err)
	}
	return answer.Dir, nil
}
