package testenv

import (
	"errors"
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
