package process

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tie puts a process into a group of its own and lets the kernel end it with its parent.
func Tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitPause returns when a child that was told to stop has, with all its threads, or has ended. A
// signal is only sent when kill returns: until each thread has seen it, the process goes on
// answering.
func awaitPause(pid int) error {
	for {
		// WNOWAIT leaves the end of the process to whoever waits for that.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reservePort binds a socket to a port that the kernel chooses, and leaves it open and not
// listening. A server that is told the port can listen there, since each Go program lets addresses
// be reused. The kernel gives the port to no other that asks for any, neither before the server
// starts nor between its end and its next start.
//
// The socket is bound to all addresses, as a manager listens on all. Bound to 127.0.0.1 alone it
// could share its port with a connection or a listener of another address, and the manager could
// not listen.
func reservePort() (int, error) {
	port, err := reserve(unix.AF_INET6, &unix.SockaddrInet6{})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // a machine without IPv6
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
