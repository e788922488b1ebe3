package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

// TestQuickStart runs the notary commands of docs/quickstart-dct.md in their order.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	const gun, hex = registry + "/acme/quickstart", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	signer := notaryserver.RunClient(t, notaryserver.Run(t, notaryserver.Options{Signer: true}))
	for _, role := range []string{"ci", "qa"} {
		key, err := notaryserver.NewSigningKey(notaryserver.ECDSA256, gun)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(signer.Dir, role+".crt"), key.PublicPEM, 0o600))
		must(t, os.WriteFile(filepath.Join(signer.Dir, role+".key"), key.PrivatePEM, 0o600))
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "quickstart-dct.md"))
	must(t, err)
	printed := map[string]string{}
	for line := range strings.Lines(string(text)) {
		args, ok := strings.CutPrefix(line, "$ notary ")
		if !ok {
			continue
		}
		args = strings.NewReplacer("REPOSITORY", gun, "SIZE", "512", "DIGEST", hex).Replace(strings.TrimSpace(args))
		printed[args], err = signer.Run(t.Context(), strings.Fields(args)...)
		must(t, err)
	}
	if len(printed) != 10 {
		t.Errorf("got %d notary commands in the page, want 10", len(printed))
	}
	root, err := signer.Root(gun)
	must(t, err)
	if out := printed["key list"]; !strings.Contains(out, root.KeyID) {
		t.Errorf("notary key list: got output\n%s\nwant the root key %s in it", out, root.KeyID)
	}
	if out := printed["list "+gun+" -r targets/ci"]; !strings.Contains(out, hex) {
		t.Errorf("notary list of targets/ci: got output\n%s\nwant %s in it", out, hex)
	}
	for _, role := range []string{"targets/ci", "targets/qa"} {
		if out, err := signer.Run(t.Context(), "list", gun, "-r", role); err != nil || !strings.Contains(out, "v1") ||
			!strings.Contains(out, hex) {
			t.Errorf("notary list of %s: got %v and output\n%s\nwant v1 in it", role, err, out)
		}
	}
}
