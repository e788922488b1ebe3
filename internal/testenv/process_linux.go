package testenv

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// tie puts a process into a group of its own and lets the kernel end it with its parent.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitPause returns when a child that was told to stop has, with all its threads, or has ended. A signal is only sent
// when kill returns: until each thread has seen it, the process goes on answering.
func awaitPause(pid int) error {
	for {
		// WNOWAIT leaves the end of the process to whoever waits for that.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reservePort binds a socket to a port that the kernel chooses, and leaves it open and not listening. A server that is told the port can listen
// there, since each Go program lets addresses be reused. The kernel gives the port to no other that asks for any, which it would do between
// a look for a free port and the start of the server, or between its end and its next start.
func reservePort() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	address, ok := bound.(*unix.SockaddrInet4)
	if !ok {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("binding a socket: %w", err)
	}
	return address.Port, nil
}
