package process

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestServersEndWithTheirParent runs this test binary once more. There a test starts a server and
// exits without cleanup, as after a panic or a kill.
func TestServersEndWithTheirParent(t *testing.T) {
	const variable = "COUNTERSIGN_TEST_ABANDON"
	if os.Getenv(variable) != "" {
		p, err := Start("sleep", t.TempDir(), nil, "/bin/sleep", "600")
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString(strconv.Itoa(p.PID()))
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServersEndWithTheirParent$")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(out)))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(poll.Interval) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d still runs, want it to end with the test that started it", pid)
		}
	}
}

// running reports whether a process exists and is no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z"))
}

// TestPause runs this test binary once more, busy on several threads, and checks that every thread
// has stopped when Pause returns.
func TestPause(t *testing.T) {
	const variable = "COUNTERSIGN_TEST_BUSY"
	if os.Getenv(variable) != "" {
		for range 3 {
			go busy()
		}
		busy()
	}
	p, err := Start("busy", t.TempDir(), append(os.Environ(), variable+"=1"), os.Args[0], "-test.run=^TestPause$")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	for range 20 {
		if err := p.Pause(); err != nil {
			t.Fatal(err)
		}
		for thread, state := range states(t, p.PID()) {
			if state != 'T' {
				t.Errorf("got state %c of thread %s of a paused process, want T", state, thread)
			}
		}
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("pausing a process that has ended: got %v, want %v", err, os.ErrProcessDone)
	}
}

// busy makes system calls forever. A thread handles a signal when it returns from the kernel.
func busy() {
	for {
		_ = syscall.Getppid()
	}
}

// states returns the state of each thread of a process, in the notation of proc(5).
func states(t *testing.T, pid int) map[string]byte {
	t.Helper()
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d threads of process %d: %v", len(files), pid, err)
	}
	found := make(map[string]byte, len(files))
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		found[filepath.Base(filepath.Dir(file))] = rest[0]
	}
	return found
}

// TestFreePort checks that a server can listen on the port repeatedly, and that the kernel gives it
// to no other socket. The kernel chooses ports at random among so many that a test cannot wait for
// a collision. So the test binds the port with a socket that does not share it, as a connection
// does.
func TestFreePort(t *testing.T) {
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 2 {
		if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dialling: got %v, want a refused connection", err)
		}
		other := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
		if _, err := other.Dial("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("connecting from the port: got %v, want address in use", err)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the server cannot listen on the port: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMemory(t *testing.T) {
	p, err := Start("sleep", t.TempDir(), nil, "/bin/sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	resident, peak, err := p.Memory()
	if err != nil || resident <= 0 || peak < resident {
		t.Errorf("got %v MiB, peak %v MiB, %v; want more than 0, and a peak at least as high", resident, peak, err)
	}
	_ = p.Kill()
	if _, _, err := p.Memory(); err == nil {
		t.Error("got the memory of a process that has ended, want an error")
	}
}
