package trust

import "context"

// Purpose says what a request to a server is for, so that important requests do not wait behind
// others. It concerns load alone: verification does not depend on it.
type Purpose struct {
	// Known says that the request concerns a repository known to be signed, or the server itself.
	// Anybody can name other repositories.
	Known bool
	// Background says that no caller was waiting when the request began.
	Background bool
}

type purposeKey struct{}

// WithPurpose returns a context for requests of one purpose. It is in the context because it passes
// through the formats, which do not use it.
func WithPurpose(ctx context.Context, p Purpose) context.Context {
	return context.WithValue(ctx, purposeKey{}, p)
}

// PurposeOf returns the purpose of a context: by default a repository that anybody may have named,
// with a caller waiting.
func PurposeOf(ctx context.Context) Purpose {
	p, _ := ctx.Value(purposeKey{}).(Purpose)
	return p
}
