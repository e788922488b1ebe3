package tufrepo

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// maxEarly bounds the delegated files that are fetched before it is known which of them are needed.
// A repository with more of them has hash bins, or many teams.
const maxEarly = 8

// fetchEarly starts a request for a file of the metadata, and returns a function that waits for the
// answer.
func (c *Client) fetchEarly(ctx context.Context, name string, limit int64) (wait func() fetched) {
	done := make(chan fetched, 1)
	go func() {
		raw, err := c.get(ctx, c.metadata+"/"+name, limit)
		done <- fetched{raw: raw, err: err}
	}()
	return func() fetched { return <-done }
}

// earlyFiles are delegated files that are fetched beside targets.json, by role: the snapshot lists
// them already. Nothing of them is verified, and what no delegation leads to is never used. Nil:
// none are fetched.
type earlyFiles struct {
	files map[string]fetched
}

// fetch starts to fetch the files that a snapshot lists, if they are few, and returns a function
// that waits for them.
func (f *earlyFiles) fetch(ctx context.Context, c *Client, s *State) (wait func()) {
	if f == nil || len(s.snapshot.listed) > 1+maxEarly {
		return func() {}
	}
	var names []string
	for name, listed := range s.snapshot.listed {
		if checkRoleName(name) == nil && listed.length <= maxTargetsSize {
			names = append(names, name)
		}
	}
	answers := make([]fetched, len(names))
	var all errgroup.Group
	for i, name := range names {
		all.Go(func() error {
			answers[i].raw, answers[i].err = c.getRole(ctx, s, name, s.snapshot.listed[name], maxTargetsSize)
			return nil
		})
	}
	return func() {
		_ = all.Wait() // the errors are in the answers
		f.files = make(map[string]fetched, len(names))
		for i, name := range names {
			f.files[name] = answers[i]
		}
	}
}

// get returns the answer about the file of a role.
func (f *earlyFiles) get(name string) (answer fetched, ok bool) {
	if f != nil {
		answer, ok = f.files[name]
	}
	return answer, ok
}
