package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// migration is the story of a repository that moves from Docker Content Trust to cosign, and back.
type migration struct {
	*demo
	images
	notary *notaryserver.Server
	tools  string // the folder of the commands, in which they run too
	load   load
	app    *target
	builds int
	// repositories are those that were released.
	repositories []string
	// released is the image that latest means, and before the one that it meant until then.
	released, before signers.Image
}

func (m *migration) servers() []server {
	return []server{
		{"Starting a TLS registry, and pushing newly made images to it", m.startRegistry},
		{"Starting notary-server (Docker Content Trust) with a new CA", m.startNotary},
		{"Building kubectl countersign and cosign", m.buildTools},
	}
}

func (m *migration) startRegistry(ctx context.Context) error {
	return m.start(ctx, m.demo, "unsigned")
}

func (m *migration) startNotary(ctx context.Context) error {
	dir, err := m.subdir("notary")
	if err != nil {
		return err
	}
	m.notary, err = notaryserver.Start(ctx, notaryserver.Options{Dir: dir, Progress: m.out})
	if err != nil {
		return err
	}
	m.stopLater(m.notary.Stop)
	return nil
}

// buildTools makes a folder with the commands and the CAs of both servers.
func (m *migration) buildTools(ctx context.Context) (err error) {
	if m.tools, err = m.subdir("tools"); err != nil {
		return err
	}
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	if _, err := build.Go(ctx, root, "build", "-o", filepath.Join(m.tools, "kubectl-countersign"),
		"./cmd/kubectl-countersign"); err != nil {
		return fmt.Errorf("building kubectl countersign: %w", err)
	}
	cosign, err := build.Cosign(ctx, m.out)
	if err != nil {
		return err
	}
	if err := os.Symlink(cosign, filepath.Join(m.tools, "cosign")); err != nil {
		return fmt.Errorf("linking cosign: %w", err)
	}
	cas := bytes.Join([][]byte{m.registry.CA.PEM, m.notary.CA.PEM}, []byte("\n"))
	if err := os.WriteFile(filepath.Join(m.tools, "cas.crt"), cas, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.tools, "notary.crt"), m.notary.CA.PEM, 0o600)
}

// environ returns the environment of the commands: that of a person who uses all of them.
func (m *migration) environ() []string {
	return append(m.kube.KubectlEnv(),
		"PATH="+strings.Join([]string{m.tools, filepath.Dir(m.kube.Kubectl), os.Getenv("PATH")},
			string(os.PathListSeparator)),
		"HOME="+m.tools, "DOCKER_CONFIG="+m.tools, "SSL_CERT_FILE="+filepath.Join(m.tools, "cas.crt"),
		"COSIGN_PASSWORD=", "COSIGN_YES=true",
		"DOCKER_CONTENT_TRUST_SERVER="+m.notary.URL,
		"DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE="+notaryserver.Passphrase,
		"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE="+notaryserver.Passphrase)
}

// The names in the command lines of docs/migration.md that the story replaces.
const (
	pageHost       = "registry.example.com"
	pageRepository = pageHost + "/acme/app"
)

// shell runs a command line of docs/migration.md about an image, and prints it with its output.
func (m *migration) shell(ctx context.Context, line string, on signers.Image) answer {
	if on.Repository != "" {
		line = strings.ReplaceAll(line, pageRepository, on.Repository)
	}
	line = strings.NewReplacer(pageHost, m.registry.Host, "DIGEST", on.Digest).Replace(line)
	fmt.Fprintln(m.out)
	m.command(line)
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = m.tools, m.environ()
	process.Tie(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	fmt.Fprint(m.out, out.String())
	return answer{command: line, output: out.String(), failed: err != nil}
}

// shells runs command lines, each of which must succeed.
func (m *migration) shells(ctx context.Context, on signers.Image, lines ...string) error {
	for _, line := range lines {
		if err := m.shell(ctx, line, on).succeeds(); err != nil {
			return err
		}
	}
	return nil
}

// push pushes a new image to a repository under a tag of its own.
func (m *migration) push(ctx context.Context, repository string) (signers.Image, error) {
	m.builds++
	return signers.Push(ctx, m.registry, repository, fmt.Sprintf("build-%d", m.builds))
}

// move moves the tag latest to an image.
func (m *migration) move(ctx context.Context, to signers.Image) error {
	m.comment(fmt.Sprintf("The tag latest of %s moves to %s...", to.Repository, short(to.Digest)))
	from, err := name.NewDigest(to.ByDigest())
	if err != nil {
		return err
	}
	found, err := remote.Get(from, m.registry.Options(ctx)...)
	if err != nil {
		return err
	}
	return remote.Tag(from.Tag("latest"), found, m.registry.Options(ctx)...)
}

// way is how both roles sign.
type way struct{ ci, qa []string }

// release releases a new image of acme/app as latest, signed in a way, and waits until it is
// pinned.
func (m *migration) release(ctx context.Context, w way) (err error) {
	m.before = m.released
	if m.released, err = m.push(ctx, "acme/app"); err != nil {
		return err
	}
	m.comment(fmt.Sprintf("Release %d: CI has built %s...", m.builds, short(m.released.Digest)))
	// With both roles on DCT, latest has no digest of both while only one of them has signed.
	m.app.expect(w.isDCT(), m.before.Digest, m.released.Digest)
	if err := m.signed(ctx, m.released, w); err != nil {
		return err
	}
	took, err := m.until(ctx, refreshed, pollInterval, "the new release to be pinned", func() error {
		return m.dryRunAPI(ctx, m.app.image).succeeds("@" + m.released.Digest)
	})
	if err != nil {
		return err
	}
	m.app.expect(false, m.released.Digest)
	m.say("Pinned %s after the tag was moved.", took.Round(time.Second))
	return nil
}

func (w way) isDCT() bool { return w.ci[0] == signCIDCT && w.qa[0] == signQADCT }

// signed signs an image in a way, verifies it as a pipeline does, and moves the tag to it.
func (m *migration) signed(ctx context.Context, on signers.Image, w way) error {
	if err := m.shells(ctx, on, w.ci...); err != nil {
		return err
	}
	if err := m.shells(ctx, on, w.qa...); err != nil {
		return err
	}
	if err := m.shell(ctx, verifyRelease, on).succeeds("admitted", "1 admitted"); err != nil {
		return err
	}
	if !slices.Contains(m.repositories, on.Repository) {
		m.repositories = append(m.repositories, on.Repository)
	}
	return m.move(ctx, on)
}

// newcomer releases an image of a repository that the manager has never seen, and runs a Pod with
// it.
func (m *migration) newcomer(ctx context.Context, repository string, w way, prepare ...string) error {
	m.say("A repository that was never seen before:")
	on, err := m.push(ctx, "acme/"+repository)
	if err != nil {
		return err
	}
	if err := m.shells(ctx, on, prepare...); err != nil {
		return err
	}
	if err := m.signed(ctx, on, w); err != nil {
		return err
	}
	return m.pins(ctx, repository, on)
}

// pins runs a Pod with the tag latest, and returns an error unless it is pinned to an image.
func (m *migration) pins(ctx context.Context, pod string, to signers.Image) error {
	if err := m.runPod(ctx, pod, to.Repository+":latest").succeeds("pod/" + pod + " created"); err != nil {
		return err
	}
	return m.kubectl(ctx, "get", "pod", pod, "-n", namespace, "-o", `jsonpath={.spec.containers[0].image}{"\n"}`).
		succeeds(":latest@" + to.Digest)
}

// stopped stops the Notary server while run runs.
func (m *migration) stopped(ctx context.Context, run func(context.Context) error) error {
	if err := m.serve(down); err != nil {
		return err
	}
	m.say("The Notary server is stopped.")
	if err := run(ctx); err != nil {
		return err
	}
	if err := m.serve(up); err != nil {
		return err
	}
	m.say("The Notary server is up again.")
	return nil
}

// serve stops the Notary server, or starts it again. The server keeps its metadata in memory, so
// serve suspends the process and makes its address refuse connections.
func (m *migration) serve(up bool) error {
	if up {
		return errors.Join(m.notary.Server().Resume(), m.notary.Reconnect())
	}
	m.notary.Disconnect()
	return m.notary.Server().Pause()
}

// ends prints who signs what, and what the load has counted during the step.
func (m *migration) ends(ctx context.Context, pod string) error {
	if err := m.pins(ctx, pod, m.released); err != nil {
		return err
	}
	if err := m.denied(ctx, m.demo, pod+"-unsigned", "unsigned", `role "ci"`); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.tools, "repositories.txt"),
		[]byte(strings.Join(m.repositories, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	if err := m.shell(ctx, summary, m.released).succeeds(m.released.Repository); err != nil {
		return err
	}
	line, err := m.load.report()
	m.say("%s", line)
	return err
}

// keep starts the Notary server again, and prints what to try.
func (m *migration) keep(context.Context) error {
	m.explain(m.app.image, fmt.Sprintf("The commands and keys are in %s.\n", m.tools))
	return nil
}
