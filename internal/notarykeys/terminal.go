package notarykeys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Terminal reads lines that are not echoed.
type Terminal interface {
	// ReadPassword prints the prompt and returns the line, without its end. It returns the context's
	// error when the context ends first.
	ReadPassword(ctx context.Context, prompt string) ([]byte, error)
}

// OpenTerminal returns the terminal that a command reads from, or nil if its input is none. Prompts
// go to out, which should not be the output that others parse.
func OpenTerminal(in io.Reader, out io.Writer) Terminal {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return terminal{int(f.Fd()), out}
}

type terminal struct {
	in  int
	out io.Writer
}

// ReadPassword implements Terminal. When the context ends, it restores the echo of the terminal.
func (t terminal) ReadPassword(ctx context.Context, prompt string) ([]byte, error) {
	state, err := term.GetState(t.in)
	if err != nil {
		return nil, fmt.Errorf("reading the state of the terminal: %w", err)
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
		text, err := term.ReadPassword(t.in)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		fmt.Fprintln(t.out) // the line's end was not echoed
		if errors.Is(l.err, io.EOF) {
			return nil, errors.New("the terminal's input ended")
		}
		return l.text, l.err
	case <-ctx.Done():
		fmt.Fprintln(t.out)
		return nil, errors.Join(ctx.Err(), term.Restore(t.in, state))
	}
}
