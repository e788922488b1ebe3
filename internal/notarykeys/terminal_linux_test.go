package notarykeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openTerminal returns both ends of a pseudo-terminal: what a user has, and what a program has.
func openTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return user, program
}

// A passphrase that is typed on a real terminal is not echoed.
func TestThreatPassphraseIsNotEchoed(t *testing.T) {
	user, program := openTerminal(t)
	s := newStore(t)
	s.Passphrases = &Passphrases{Getenv: environment(nil), Terminal: OpenTerminal(program, program)}
	var screen bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- answer(user, &screen, passphrase, passphrase) }()
	generate(t, s, "ci", "")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := screen.String()
	if strings.Contains(got, passphrase) || strings.Count(got, "assphrase of the new key") != 2 {
		t.Errorf("got %q on the screen, want two prompts and no passphrase", got)
	}
}

// answer types one line for each prompt, and records what is on the screen until the last line
// ended.
func answer(user *os.File, screen *bytes.Buffer, lines ...string) error {
	buffer := make([]byte, 256)
	for _, line := range lines {
		for !strings.HasSuffix(screen.String(), ": ") {
			n, err := user.Read(buffer)
			if err != nil {
				return err
			}
			screen.Write(buffer[:n])
		}
		if _, err := user.WriteString(line + "\n"); err != nil {
			return err
		}
		before := screen.Len()
		for !bytes.Contains(screen.Bytes()[before:], []byte("\n")) {
			n, err := user.Read(buffer)
			if err != nil {
				return err
			}
			screen.Write(buffer[:n])
		}
	}
	return nil
}

// An interrupt ends the prompt, and restores the terminal's echo.
func TestInterruptedPrompt(t *testing.T) {
	user, program := openTerminal(t)
	before, err := term.GetState(int(program.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := newStore(t)
	s.Passphrases = &Passphrases{Getenv: environment(nil), Terminal: OpenTerminal(program, program)}
	go func() {
		buffer := make([]byte, 256)
		var screen string
		for !strings.HasSuffix(screen, ": ") {
			n, err := user.Read(buffer)
			if err != nil {
				break
			}
			screen += string(buffer[:n])
		}
		cancel()
	}()
	if _, err := s.Generate(ctx, "ci", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want that of the context", err)
	}
	after, err := term.GetState(int(program.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if *before != *after {
		t.Errorf("got state %v of the terminal, want %v", after, before)
	}
	if keys, _ := s.List(); len(keys) > 0 {
		t.Errorf("got %v in the store, want none", keys)
	}
}

// What is no terminal is not read from.
func TestNoTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if OpenTerminal(null, os.Stderr) != nil || OpenTerminal(strings.NewReader("line\n"), os.Stderr) != nil {
		t.Error("got a terminal, want none")
	}
}
