package trust

import "context"

// Purpose says what a request to a server is for, so that what much depends on finds a place beside
// what little does. It is a matter of load alone: what is verified does not depend on it.
type Purpose struct {
	// Known says that it is about a repository known to be signed, or about the server itself.
	// Anybody can name others.
	Known bool
	// Background says that nobody was waiting when it began.
	Background bool
}

type purposeKey struct{}

// WithPurpose returns a context for requests of one purpose. It is in the context because the
// formats, through which it passes, have no use for it.
func WithPurpose(ctx context.Context, p Purpose) context.Context {
	return context.WithValue(ctx, purposeKey{}, p)
}

// PurposeOf returns the purpose of a context: by default one of a repository that anybody may have
// named, with somebody waiting.
func PurposeOf(ctx context.Context) Purpose {
	p, _ := ctx.Value(purposeKey{}).(Purpose)
	return p
}
