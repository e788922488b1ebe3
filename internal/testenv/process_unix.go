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

// awaitPause does nothing: only Linux tells of a child that has stopped without taking the news of its end as well.
func awaitPause(int) error { return nil }
