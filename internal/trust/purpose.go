package trust

import (
	"context"

	"github.com/countersign-dev/countersign/internal/fair"
)

// Purpose says what a request to a server is for, so that important requests do not wait behind
// others. It concerns load alone: verification does not depend on it.
type Purpose struct {
	// Known says that the request concerns a repository known to be signed, or the server itself.
	// Anybody can name other repositories.
	Known bool
	// Background says that no caller was waiting when the request began.
	Background bool
	// Namespace is the namespace whose admission request waits; empty: none does.
	Namespace string
	// Wanted are the shares of all requests that wait, some of which may have joined later. Nil:
	// Share alone.
	Wanted *fair.Shares
}

// BackgroundShare is the share of work in the background. It is no namespace: their names have no
// spaces.
const BackgroundShare = "background work"

// Share returns the share that limits count the work against: the namespace, or BackgroundShare.
func (p Purpose) Share() string {
	if p.Background {
		return BackgroundShare
	}
	return p.Namespace
}

// Shares returns the shares that want the work.
func (p Purpose) Shares() *fair.Shares {
	if p.Wanted != nil {
		return p.Wanted
	}
	return fair.NewShares(p.Share())
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
