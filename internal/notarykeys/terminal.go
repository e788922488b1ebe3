package notarykeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// maxLine bounds a line that is typed. Terminals do not give longer ones.
const maxLine = 4096

// Terminal reads lines that are not echoed.
type Terminal interface {
	// ReadPassword prints the prompt and returns the line, without its end. It returns the
	// context's error when the context ends first.
	ReadPassword(ctx context.Context, prompt string) ([]byte, error)
}

// OpenTerminal returns the terminal that a command reads from, or nil if its input is none. Prompts
// go to out, which should not be the output that others parse.
func OpenTerminal(in io.Reader, out io.Writer) Terminal {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return terminal{f, out}
}

type terminal struct {
	in  *os.File
	out io.Writer
}

// ReadPassword implements Terminal. The echo ends before the prompt appears, and is restored in any
// case.
func (t terminal) ReadPassword(ctx context.Context, prompt string) (_ []byte, err error) {
	fd := int(t.in.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("reading the state of the terminal: %w", err)
	}
	defer func() {
		if restored := term.Restore(fd, state); restored != nil && err == nil {
			err = fmt.Errorf("restoring the echo of the terminal: %w", restored)
		}
		fmt.Fprintln(t.out) // the line's end was not echoed
	}()
	if err := echoOff(fd); err != nil {
		return nil, fmt.Errorf("ending the echo of the terminal: %w", err)
	}
	if _, err := io.WriteString(t.out, prompt); err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := readLine(t.in)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readLine reads one line, and not a byte more: the next prompt may read that.
func readLine(in io.Reader) ([]byte, error) {
	line := make([]byte, 0, maxLine)
	for len(line) < cap(line) {
		n, err := in.Read(line[len(line) : len(line)+1])
		line = line[:len(line)+n]
		switch {
		case n == 1 && line[len(line)-1] == '\n':
			return bytes.TrimRight(line, "\r\n"), nil
		case errors.Is(err, io.EOF):
			clear(line)
			return nil, errors.New("the input of the terminal ended")
		case err != nil:
			clear(line)
			return nil, err
		}
	}
	clear(line)
	return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
}
