package notarykeys

import "context"

// Terminal reads a line that is not echoed.
type Terminal interface {
	// ReadPassword prints the prompt and returns the line, without its end. It returns the context's
	// error when the context ends first.
	ReadPassword(ctx context.Context, prompt string) ([]byte, error)
}
