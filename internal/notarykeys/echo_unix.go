//go:build linux || darwin || freebsd || netbsd || openbsd

package notarykeys

import "golang.org/x/sys/unix"

// echoOff ends the echo of a terminal, and makes it give whole lines. What was typed before stays
// to be read.
func echoOff(fd int) error {
	state, err := unix.IoctlGetTermios(fd, getTerminal)
	if err != nil {
		return err
	}
	state.Lflag &^= unix.ECHO
	state.Lflag |= unix.ICANON | unix.ISIG
	state.Iflag |= unix.ICRNL
	return unix.IoctlSetTermios(fd, setTerminal, state)
}
