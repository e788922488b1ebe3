package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	loadPause   = 100 * time.Millisecond // between two creations of a target
	loadWorkers = 2                      // of each target
	maxWrong    = 3                      // answers that the error lists
)

// expectation says which answers are right at a moment.
type expectation struct {
	// digests are those to which the image may be pinned.
	digests []string
	// denied says that a denial is right too.
	denied bool
}

// target is one image that the load creates again and again.
type target struct {
	image string

	mu  sync.Mutex
	now expectation
}

// expect sets which answers are right from now on.
func (t *target) expect(denied bool, digests ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = expectation{digests, denied}
}

func (t *target) expected() expectation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// check returns an error for a wrong answer to a creation that began under one expectation, and
// ended under another.
func check(a answer, begin, end expectation) (admitted bool, err error) {
	if a.failed {
		if !strings.Contains(a.output, "denied the request") {
			return false, a.unexpected("an answer of the admission webhook")
		}
		// The tag moved after the webhook was to pin the Pod, and before it validated the Pod.
		between := (len(begin.digests) > 1 || len(end.digests) > 1) &&
			(strings.Contains(a.output, "the tag is signed otherwise") ||
				strings.Contains(a.output, "and not pinned to it; try again"))
		if !begin.denied && !end.denied && !between {
			return false, a.unexpected("an admission, pinned to " + strings.Join(end.digests, " or "))
		}
		return false, nil
	}
	for _, digest := range slices.Concat(begin.digests, end.digests) {
		if strings.HasSuffix(a.output, "@"+digest) {
			return true, nil
		}
	}
	return true, a.unexpected("a denial, or one of the digests " + strings.Join(end.digests, ", "))
}

// tally counts the answers since the last call of report.
type tally struct {
	admitted, denied int
	wrong            []error
}

// load creates Pods of each target, in dry runs that call every webhook, and counts the answers.
type load struct {
	create  func(ctx context.Context, image string) answer
	targets []*target

	mu    sync.Mutex
	since tally
	group *errgroup.Group
	end   context.CancelFunc
}

// start starts the load. It ends with stop.
func (l *load) start(ctx context.Context) {
	ctx, l.end = context.WithCancel(ctx)
	l.group = &errgroup.Group{}
	for _, t := range l.targets {
		for range loadWorkers {
			l.group.Go(func() error {
				l.run(ctx, t)
				return nil
			})
		}
	}
}

func (l *load) run(ctx context.Context, t *target) {
	for ctx.Err() == nil {
		begin := t.expected()
		a := l.create(ctx, t.image)
		if ctx.Err() != nil {
			return // the end of the load interrupted the creation
		}
		admitted, err := check(a, begin, t.expected())
		l.mu.Lock()
		switch {
		case err != nil:
			l.since.wrong = append(l.since.wrong, err)
		case admitted:
			l.since.admitted++
		default:
			l.since.denied++
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(loadPause):
		}
	}
}

// report returns how many answers came since the last call, and an error if one of them was wrong.
func (l *load) report() (string, error) {
	l.mu.Lock()
	got := l.since
	l.since = tally{}
	l.mu.Unlock()
	line := fmt.Sprintf("Under load: %d admitted, %d denied, %d wrong.", got.admitted, got.denied, len(got.wrong))
	if len(got.wrong) > 0 {
		return line, errors.Join(got.wrong[:min(len(got.wrong), maxWrong)]...)
	}
	if got.admitted == 0 || got.denied == 0 {
		return line, fmt.Errorf("the load did not run: %d admitted, %d denied", got.admitted, got.denied)
	}
	return line, nil
}

// stop ends the load.
func (l *load) stop() error {
	if l.end == nil {
		return nil
	}
	l.end()
	return l.group.Wait()
}
