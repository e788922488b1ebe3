package store

import (
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// The stages of a Verification.
const (
	// StageProbe is a probe of the signing server, without any repository.
	StageProbe = "probe"
	// StageFeed is a reading of the change feed, without any repository.
	StageFeed = "feed"
	// StageFirst is the first fetch of a repository.
	StageFirst = "first"
	// StageRefresh is a fetch of a repository with evidence.
	StageRefresh = "refresh"
	// StageRecheck is evidence that an edited trust root verified again, without a network.
	StageRecheck = "recheck"
	// StageRestore is evidence from a record, of another replica or from before a restart, without
	// a network.
	StageRestore = "restore"
)

// Observer receives each verification by a trust root. It must not block, and is called from
// several goroutines at once.
type Observer interface {
	Verified(Verification)
}

// Verification is the outcome of one verification by a trust root.
type Verification struct {
	// Root is the name of the trust root, and Format what it verifies.
	Root, Format string
	// Stage is one of the stages above.
	Stage string
	// Took is how long it took, the network included.
	Took time.Duration
	// Unsigned says that the repository was found to have no signatures.
	Unsigned bool
	// Fault is set where it failed.
	Fault *trust.Fault
}

// observe reports a verification that began at a time to the observer, if there is one.
func (s *Store) observe(root, format, stage string, began time.Time, h *cached, fault *trust.Fault) {
	if s.options.Observer == nil {
		return
	}
	unsigned := fault == nil && h != nil && !signed(h)
	s.options.Observer.Verified(Verification{
		Root: root, Format: format, Stage: stage, Took: time.Since(began), Unsigned: unsigned, Fault: fault,
	})
}
