//go:build unix && !linux

package process

import (
	"net"
	"os/exec"
	"syscall"
)

// Tie gives a process its own process group.
func Tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// awaitPause does nothing: only Linux can wait for a child to stop without reaping it.
func awaitPause(int) error { return nil }

// reservePort finds a port on which no process listens now. It does not reserve the port.
func reservePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
