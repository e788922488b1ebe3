//go:build unix && !linux

package testenv

import (
	"os/exec"
	"syscall"
)

// tie puts a process into a group of its own.
func tie(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
