//go:build unix && !linux

package process

import (
	"net"
	"os/exec"
	"syscall"
)

// Tie puts a process into a group of its own.
func Tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// awaitPause does nothing: only Linux tells of a child that has stopped without taking the news of
// its end as well.
func awaitPause(int) error { return nil }

// reservePort finds a port that nothing listens on now.
func reservePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
