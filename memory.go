package main

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/budget"
)

// unlimitedEvidence bounds the evidence where the process has no memory limit: 1 GiB.
const unlimitedEvidence = 1 << 30

// memory bounds the memory of parts of the process, in bytes.
type memory struct {
	// decoding bounds the data that is being verified, and evidence the verified evidence.
	decoding, evidence int64
}

// limitMemory makes the Go runtime stay below 90 % of the memory limit of the container, unless the
// environment variable GOMEMLIMIT is set, and divides that limit among the parts. A limit that
// cannot be read counts as none.
func limitMemory() memory {
	limit, err := memlimit.Set()
	if err != nil {
		ctrl.Log.Error(err, "Could not read the memory limit of the container; set GOMEMLIMIT, such as to 900MiB")
	}
	shares := share(limit)
	ctrl.Log.Info("Shared out memory", "limit", limit, "decoding", shares.decoding, "evidence", shares.evidence)
	return shares
}

// share divides a limit among the parts; math.MaxInt64 is no limit.
func share(limit int64) memory {
	if limit == math.MaxInt64 {
		return memory{decoding: budget.Default, evidence: unlimitedEvidence}
	}
	return memory{decoding: min(budget.Default, limit/6), evidence: limit * 2 / 5}
}
