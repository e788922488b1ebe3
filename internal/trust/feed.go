package trust

import "context"

// Feed is implemented by a Root whose signing server has a change feed.
//
// The feed is not signed, so it is a hint: it may cause fetches, and proves nothing. A caller must
// fetch every repository now and then all the same.
type Feed interface {
	// Changes returns the entries after a cursor, which an earlier call returned. Without a cursor
	// it returns the newest cursor and no repository. The error is a *Fault: the feed cannot be
	// read, or there is none.
	Changes(ctx context.Context, after Cursor) (Changes, error)
}

// Cursor is a read position in a Feed. Only the Root that returned it can read it. Nil: none.
type Cursor []string

// Changes are the entries of a Feed. Both fields are bounded.
type Changes struct {
	// Repositories are those that were changed or deleted, sorted and without repetition. They may
	// have any name and number: many may be unknown to the caller.
	Repositories []string
	// Cursor is where to read on. Nil: the position is lost, since the feed has started anew or has
	// too many new entries, and there may be changes that Repositories does not list.
	Cursor Cursor
}
