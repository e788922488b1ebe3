package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// page holds the commands of docs/stolen-keys.md by section.
type page struct {
	*revoking
	t        *testing.T
	commands map[string][]string
}

func (b *revoking) page(t *testing.T) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "stolen-keys.md"))
	must(t, err)
	p := page{b, t, map[string][]string{}}
	section := ""
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			p.commands[section] = append(p.commands[section], strings.TrimSpace(command))
		}
	}
	return p
}

// run runs a command of the page with its placeholders replaced, and returns the output.
func (p page) run(section string, n int, placeholders ...string) (string, error) {
	p.t.Helper()
	if n >= len(p.commands[section]) {
		p.t.Fatalf("got %d commands in section %q of the page, want more than %d", len(p.commands[section]), section, n)
	}
	command := strings.NewReplacer(placeholders...).Replace(p.commands[section][n])
	if args, ok := strings.CutPrefix(command, "notary "); ok {
		return p.signer.Run(p.t.Context(), strings.Fields(args)...)
	}
	cmd := exec.CommandContext(p.t.Context(), "sh", "-c", `kubectl() { "$KUBECTL" "$@"; }; `+command)
	cmd.Env = append(append(os.Environ(), "KUBECTL="+p.kube.Kubectl), p.kube.KubectlEnv()...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// does checks that a command succeeds, and that its output contains all texts.
func (p page) does(section string, n int, placeholders []string, texts ...string) {
	p.t.Helper()
	out, err := p.run(section, n, placeholders...)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", p.commands[section][n], err, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			p.t.Errorf("%s: got output\n%s\nwant %q in it", p.commands[section][n], out, text)
		}
	}
}

// prints returns a function that returns nil if the output of a command contains a text.
func (p page) prints(section string, n int, placeholders []string, text string) func() error {
	return func() error {
		out, err := p.run(section, n, placeholders...)
		if err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("got output\n%s\nwant %q in it", out, text)
		}
		return err
	}
}

// fails checks that a command fails.
func (p page) fails(section string, n int, placeholders ...string) {
	p.t.Helper()
	if out, err := p.run(section, n, placeholders...); err == nil {
		p.t.Errorf("%s: got success, want an error:\n%s", p.commands[section][n], out)
	}
}

const (
	revokeIt = "First: revoke it"
	breach   = "See what is in breach"
	back     = "Taking it back"
)

// testPage follows docs/stolen-keys.md after the theft of the key of ci, and then of a targets key.
func (b *revoking) testPage(t *testing.T) {
	b.revoke(t)
	p := b.page(t)
	gun := registry + "/acme/stolen"
	keys, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.sign(t, gun, "bad", 2, "ci")
	awaitManagers(t, b.managers, pinned(gun), "the signatures", admits)
	b.admitted(t, running(production, "stolen", gun+":v1"))
	values := []string{"NEWKEYID", "", "KEYID", keys["ci"].KeyID, "REPOSITORY", gun, "BADTAG", "bad", "TAG", "v1"}

	p.fails(revokeIt, 3, values...) // spec.revokedKeys does not exist yet
	p.does(revokeIt, 0, values, "acme-notary")
	p.does(revokeIt, 2, values)
	p.does(revokeIt, 1, values, keys["ci"].KeyID)
	awaitManagers(t, b.managers, pinned(gun), "the revocation", denies(http.StatusForbidden, `role "ci" has not signed`))
	p.fails(revokeIt, 2, "KEYID", strings.Repeat("ab", 32)) // it would replace the first key
	p.does(revokeIt, 1, values, keys["ci"].KeyID)
	b.counts(t, "production", 2, 1)
	p.does(breach, 0, values, "production")
	p.does(breach, 1, values, production+"/Pod/stolen\t"+gun, `["ci"]`)
	poll.Await(t, "the event", p.prints(breach, 2, values, "not signed by ci"))
	p.does("Verify", 0, values, "True")
	if out, err := p.run("Verify", 2,
		append(values, "run probe", "run probe --namespace="+production)...); err == nil ||
		!strings.Contains(out, `role "ci" has not signed`) {
		t.Errorf("the last command of section Verify: got %v and\n%s\nwant a denial", err, out)
	}

	const signer, targets = "A signer's key", "A targets key"
	fresh, err := notaryserver.NewSigningKey(notaryserver.ECDSA256, gun)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.signer.Dir, "new-ci.crt"), fresh.PublicPEM, 0o600))
	must(t, b.signer.ImportKey(t.Context(), gun, "ci", fresh))
	p.does(signer, 0, values, "v1", "bad")
	p.does(signer, 1, values)
	p.does(signer, 2, values)
	for n := range 3 {
		p.does(signer, 3+n, values)
	}
	// The first request must admit it, although the old key is revoked.
	must(t, b.Create(t.Context(), pod(production, gun+":v1"), client.DryRunAll))
	if out, err := p.run(signer, 0, values...); err != nil || !strings.Contains(out, "v1") ||
		strings.Contains(out, "bad") {
		t.Errorf("got the list (%v)\n%s\nwant v1 in it, and not bad", err, out)
	}
	awaitManagers(t, b.managers, pinned(gun), "the new key", admits)

	top, err := b.signer.TopKeys(gun)
	must(t, err)
	values[3] = top["targets"]
	p.does(revokeIt, 3, values)
	p.does(revokeIt, 1, values, keys["ci"].KeyID, top["targets"])
	awaitManagers(t, b.managers, pinned(gun), "the revocation", denies(http.StatusServiceUnavailable, top["targets"]))
	poll.Await(t, "the fault in the status", p.prints(breach, 3, values, gun+"\tKeyRevoked\t"))
	p.does(targets, 0, values, "targets/ci", fresh.KeyID)
	p.does(targets, 1, values)
	p.does("A snapshot or timestamp key", 0, values)
	p.does("A snapshot or timestamp key", 1, values)
	awaitManagers(t, b.managers, pinned(gun), "the new targets key", admits)
	p.does(back, 0, values, top["targets"])
	p.fails(back, 1, values...) // the key is not the first of the list
	values[3] = keys["ci"].KeyID
	p.does(back, 1, values)
	p.does(revokeIt, 1, values, top["targets"])
	p.fails(back, 1, values...)
	b.revoke(t)
	must(t, b.Delete(t.Context(), running(production, "stolen", "")))
}
