package testenv

import (
	"os/exec"
	"syscall"
)

// tie puts a process into a group of its own and lets the kernel end it with its parent.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
