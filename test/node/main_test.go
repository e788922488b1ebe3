//go:build node && linux

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/build"
)

// environment is the variable that tells the inner process the folder of the run.
const environment = "COUNTERSIGN_NODE"

// prepared is the data that the outer process passes to the inner one, in a file of the folder.
type prepared struct {
	Began     time.Time
	Dir       string
	Cgroup    string // path below the root of every hierarchy
	Kube      build.KubeBinaries
	CNI       string    // folder of the network plugins
	Port      int       // of the registry
	Operators []version // the previous release, and this version
	OnHost    version   // this version, in the network of the node
}

// A version is a version of the operator to install.
type version struct {
	Version   string
	Source    string // folder of its sources
	Platforms string // platforms of its image
	Released  string // reference by digest that Image must equal; empty: any
	Image     string // reference by digest
	Manifests string // path of its install.yaml
	Replicas  int32
}

func TestMain(m *testing.M) {
	if os.Getenv(environment) != "" {
		os.Exit(inside(m))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := outside(ctx)
	stop()
	if status := (*exec.ExitError)(nil); errors.As(err, &status) && status.ExitCode() > 0 {
		os.Exit(status.ExitCode()) // the tests have said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make test-node:", err)
		os.Exit(1)
	}
}

// outside prepares the run, runs the tests in namespaces, and removes what remains after them.
func outside(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New(
			"needs root, for containers and their own network; run it with sudo, or on a machine where you are root")
	}
	p := &prepared{Began: time.Now()}
	if err := p.packages(ctx); err != nil {
		return err
	}
	if p.Dir, err = os.MkdirTemp("", "countersign-node-"); err != nil {
		return fmt.Errorf("making a folder for the node: %w", err)
	}
	p.Cgroup = filepath.Base(p.Dir)
	var made []string
	undo := func() error { return nil }
	defer func() {
		p.say("Removing what the node left: its control groups and %s", p.Dir)
		err = errors.Join(err, removeCgroups(p.Cgroup), undo(), removeMountPoints(made), os.RemoveAll(p.Dir))
	}()
	if err := p.build(ctx); err != nil {
		return err
	}
	if undo, err = makeCgroups(p.Cgroup); err != nil {
		return err
	}
	if made, err = makeMountPoints(); err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.Dir, "prepared.json"), text, 0o600); err != nil {
		return err
	}
	return enter(ctx, p.Dir)
}

// inside runs the tests as the first process of the namespaces.
func inside(m *testing.M) int {
	if err := enclose(); err != nil {
		fmt.Fprintln(os.Stderr, "make test-node: setting up namespaces:", err)
		return 1
	}
	return m.Run()
}

// readPrepared reads the data of the outer process.
func readPrepared() (*prepared, error) {
	text, err := os.ReadFile(filepath.Join(os.Getenv(environment), "prepared.json"))
	if err != nil {
		return nil, fmt.Errorf("reading the data of the outer process: %w", err)
	}
	p := &prepared{}
	return p, json.Unmarshal(text, p)
}

// say prints the progress of the run, with the time since its start.
func (p *prepared) say(format string, args ...any) {
	since := time.Since(p.Began).Round(time.Second)
	fmt.Fprintf(os.Stderr, "[%02d:%02d] %s\n", int(since.Minutes()), int(since.Seconds())%60,
		fmt.Sprintf(format, args...))
}
