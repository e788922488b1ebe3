package v1alpha1_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A URL with a password or a token is refused, whatever else is wrong with it. Neither the API
// server nor kubectl prints the secret, because their output is shown in terminals and written to
// logs.
func TestThreatPasswordInServer(t *testing.T) {
	c := server(t)
	const secret = "hunter2"
	for _, url := range []string{
		"https://reader:" + secret + "@notary.example.com",
		"https://reader:" + secret + "@notary.example.com/v2/",
		"https://" + secret + "@notary.example.com",
		"http://reader:" + secret + "@notary.example.com",
		"HTTPS://reader:" + secret + "@NOTARY.example.com",
		" https://reader:" + secret + "@notary.example.com\n",
		"reader:" + secret + "@notary.example.com",
		"https://notary.example.com?token=" + secret,
		"https://notary.example.com/v2#" + secret,
		"https://reader:" + secret + "@notary.example.com?token=" + secret,
	} {
		for field, edit := range map[string]func(spec){
			"notary.server":        set("notary.server", url),
			"notary.tokenServices": set("notary.tokenServices", []any{url}),
		} {
			if field == "notary.tokenServices" && !strings.Contains(url, "@") {
				continue // The field has a host and no URL.
			}
			s := rootSpec()
			edit(s)
			err := submit(t, c, "TrustRoot", s)
			if !apierrors.IsInvalid(err) || strings.Contains(err.Error(), secret) ||
				!strings.Contains(err.Error(), "spec."+field) {
				t.Errorf("%s, %q: got %v, want it refused as invalid without the secret", field, url, err)
			}
			printed, err := kubectl(t, "create", "--dry-run=server", "-f", manifest(t, "TrustRoot", s))
			if err == nil || strings.Contains(printed, secret) || !strings.Contains(printed, "spec."+field) {
				t.Errorf("%s, %q: got %s from kubectl, want the field and not the secret", field, url, printed)
			}
		}
	}
}

// manifest writes an object to a file, and returns its path.
func manifest(t *testing.T, kind string, s spec) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": map[string]any{"name": "printed"},
		"spec": s,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), kind+".json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
