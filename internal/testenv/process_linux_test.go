package testenv

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestServersEndWithTheirParent runs this test binary once more, in which a test starts a server and then ends without
// any cleanup, as a panic or a kill would end it.
func TestServersEndWithTheirParent(t *testing.T) {
	const variable = "COUNTERSIGN_TEST_ABANDON"
	if os.Getenv(variable) != "" {
		p, err := StartProcess("sleep", t.TempDir(), nil, "/bin/sleep", "600")
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
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d outlived the test that started it", pid)
		}
	}
}

// running reports whether a process exists that is not merely waiting to be reaped.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z"))
}

func TestMemory(t *testing.T) {
	p, err := StartProcess("sleep", t.TempDir(), nil, "/bin/sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	resident, peak, err := p.Memory()
	if err != nil || resident <= 0 || peak < resident {
		t.Errorf("memory is %v MiB, %v at its peak, %v; want some, and no less at the peak", resident, peak, err)
	}
	_ = p.Kill()
	if _, _, err := p.Memory(); err == nil {
		t.Error("a process that has ended holds memory")
	}
}
