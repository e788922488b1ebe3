package process

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tie gives a process its own process group, and makes the kernel kill it when its parent dies.
func Tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitPause waits until all threads of a child that got SIGSTOP have stopped, or the child has
// ended. The kill system call only sends the signal. Until each thread has handled it, the process
// can still respond.
func awaitPause(pid int) error {
	for {
		// WNOWAIT does not reap the process: Start waits for its end.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reservePort binds a socket to a port that the kernel chooses, and leaves the socket open without
// listening. A server can still listen on the port, since Go sets SO_REUSEADDR. The kernel does not
// choose the port again, neither before the server starts nor while it restarts.
//
// The socket is bound to all addresses, because a manager listens on all of them. A socket bound to
// 127.0.0.1 could share its port with a connection or listener on another address, and the manager
// could not listen.
func reservePort() (int, error) {
	port, err := reserve(unix.AF_INET6, &unix.SockaddrInet6{})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // no IPv6
		port, err = reserve(unix.AF_INET, &unix.SockaddrInet4{})
	}
	return port, err
}

func reserve(family int, all unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = unix.Bind(fd, all)
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	switch address := bound.(type) {
	case *unix.SockaddrInet6:
		return address.Port, nil
	case *unix.SockaddrInet4:
		return address.Port, nil
	}
	_ = unix.Close(fd)
	return 0, fmt.Errorf("binding a socket: %w", err)
}
