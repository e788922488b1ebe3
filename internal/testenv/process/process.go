// Package process runs the servers of tests and the demo as child processes. Stop and Kill end them
// by process id. On Linux the kernel also ends them when the parent dies, so a test that panics
// leaves no process behind. The package also finds free ports for servers.
package process

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// StartTimeout bounds the time until a server is ready. A control plane on two busy cores can need
// most of it.
const StartTimeout = 90 * time.Second

const (
	stopTimeout = 20 * time.Second // Stop kills the process after this time
	logTail     = 4 << 10
)

// Process is a server of a test or the demo. It has its own process group: Ctrl-C in the terminal
// interrupts only the parent, which then stops its servers in order.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process has ended
	err  error         // of Wait; read after done is closed
}

// Start starts an executable in dir, and writes its output to <dir>/<name>.log. A nil env means the
// parent's environment.
func Start(name, dir string, env []string, path string, args ...string) (*Process, error) {
	p := &Process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	Tie(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Log returns the path of the file with the output of the process.
func (p *Process) Log() string { return p.log }

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Memory returns the resident memory of the process, and its peak, in MiB. It needs Linux.
func (p *Process) Memory() (resident, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			resident = kib / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			peak = kib / 1024
		}
	}
	if resident == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("no memory of %s in\n%s", p.name, text)
	}
	return resident, peak, nil
}

// Stop sends SIGTERM, and kills the process if it does not end within 20 seconds. A test may call
// it more than once, and on nil.
func (p *Process) Stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a paused process does not handle SIGTERM
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
		return p.Kill()
	}
}

// Kill ends the process at once with SIGKILL, like a crash.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Pause suspends the process until Resume. Its connections stay open, and when Pause has returned
// the process responds to nothing.
func (p *Process) Pause() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pausing %s: %w", p.name, err)
	}
	if err := awaitPause(p.PID()); err != nil {
		return fmt.Errorf("waiting for %s to pause: %w", p.name, err)
	}
	return nil
}

// Resume resumes a paused process.
func (p *Process) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Tail returns the end of the log.
func (p *Process) Tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("--- end of %s ---\n%s", p.log, bytes.TrimSpace(text[max(0, len(text)-logTail):]))
}

// Await polls until ready returns nil. It fails after StartTimeout, when the context is done, or
// when the process ends. The error contains the end of the log.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, StartTimeout)
	defer cancel()
	for begun := time.Now(); ; {
		last := ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name,
				cmp.Or(p.err, errors.New("exit status 0")), p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready: %w\n%s", p.name, last, p.Tail())
		case <-time.After(poll.After(begun)):
		}
	}
}

// FreePort returns a port on which no process listens. On Linux it is free on every address, and
// stays reserved while this process lives: the kernel gives it to no other process, also while the
// server restarts.
func FreePort() (int, error) {
	port, err := reservePort()
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	return port, nil
}

// Healthy returns nil if a GET request gets status 200.
func Healthy(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s returns %s: %s", url, resp.Status, body)
	}
	return nil
}
