package main

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/countersign-dev/countersign/internal/budget"
)

// unlimitedEvidence bounds the evidence where the process has no memory limit: 1 GiB.
const unlimitedEvidence = 1 << 30

// gcPercent is how much the heap grows between two garbage collections, in percent of what is in
// use. Most of the heap is evidence, which stays: the default of 100 would double it. One of 50
// costs a request about 5 % more processor time.
const gcPercent = 50

// limitGarbage sets the target of the garbage collector, unless the environment variable GOGC does.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// memory bounds the memory of parts of the process, in bytes.
type memory struct {
	// decoding bounds the data that is being verified, and evidence the verified evidence.
	decoding, evidence int64
}

// limitMemory makes the Go runtime stay below 90 % of the memory limit of the container, unless the
// environment variable GOMEMLIMIT is set, and divides that limit among the parts. A limit that
// cannot be read counts as none.
func limitMemory() memory {
	limitGarbage()
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
