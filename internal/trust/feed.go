package trust

import "context"

// Feed is what a Root implements whose signing server lists what was published.
//
// The list is not signed, so it is a hint: it may cause fetches, and nothing is believed of it.
// Whoever goes by it must fetch every repository now and then all the same.
type Feed interface {
	// Changes returns what was published after a cursor, which an earlier call returned. Without a
	// cursor it returns the newest, and names nothing. The error is a *Fault: the list cannot be
	// read, or there is none.
	Changes(ctx context.Context, after Cursor) (Changes, error)
}

// Cursor is a place in a Feed. Only the Root that it is of can read it. Nil: none.
type Cursor []string

// Changes are what a Feed has listed. Both fields are bounded.
type Changes struct {
	// Repositories are those that something was published to, or that were deleted, sorted and
	// without repetition. They may be of any name and number: many are of no concern.
	Repositories []string
	// Cursor is where to go on. Nil: the place was lost, since the list has started anew or has run
	// on too far, and there may be changes that Repositories does not name.
	Cursor Cursor
}
