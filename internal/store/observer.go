package store

import (
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// The stages at which a trust root verifies, as Verification has them.
const (
	// StageProbe is a sign of life of the signing server, without any repository.
	StageProbe = "probe"
	// StageFeed is the list of what was published, without any repository.
	StageFeed = "feed"
	// StageFirst is a repository of which nothing was held.
	StageFirst = "first"
	// StageRefresh is a repository of which evidence was held.
	StageRefresh = "refresh"
	// StageRecheck is evidence that an edited trust root verified anew, without a network.
	StageRecheck = "recheck"
	// StageRestore is evidence that was written down, by another replica or before a restart,
	// without a network.
	StageRestore = "restore"
)

// Observer is told of each time that a trust root verified something. It must not block, and is
// called from several goroutines at once.
type Observer interface {
	Verified(Verification)
}

// Verification is what came of it when a trust root verified something.
type Verification struct {
	// Root is the name of the trust root, and Format what it verifies.
	Root, Format string
	// Stage is one of the stages above.
	Stage string
	// Took is how long it took, the network included.
	Took time.Duration
	// Unsigned says that the repository was found to carry no signatures.
	Unsigned bool
	// Fault is set where it failed.
	Fault *trust.Fault
}

// observe tells the observer, if there is one, what came of a verification that began at a time.
func (s *Store) observe(root, format, stage string, began time.Time, h *cached, fault *trust.Fault) {
	if s.options.Observer == nil {
		return
	}
	unsigned := fault == nil && h != nil && !signed(h)
	s.options.Observer.Verified(Verification{
		Root: root, Format: format, Stage: stage, Took: time.Since(began), Unsigned: unsigned, Fault: fault,
	})
}
