package notary

import (
	"context"
	"errors"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/trust"
)

// costPerByte bounds the memory to verify files, per byte of the files: the file, its canonical
// form, a buffer to sort it, the decoded targets, and the compressed files.
const costPerByte = 7

// keyCostPerByte bounds the memory of decoded keys and certificates, per encoded byte.
const keyCostPerByte = 32

// fixedCost is the memory that does not depend on the size, in bytes.
const fixedCost = 64 << 10

// cost bounds the memory to verify files of so many bytes.
func cost(bytes int) int64 {
	return int64(bytes)*costPerByte + int64(min(bytes, maxFileKeys))*keyCostPerByte + fixedCost
}

// withinBudget waits until the memory budget has enough left, and then runs work. work verifies
// files of so many bytes and uses no network. The error is the error of work or a *trust.Fault.
func (r *Root) withinBudget(ctx context.Context, repository string, bytes int, work func() error) error {
	release, err := r.budget.Acquire(ctx, cost(bytes))
	if _, tooLarge := errors.AsType[*budget.TooLargeError](err); tooLarge {
		return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: %w", repository, err)
	}
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonTimeout, "%s: %w", repository, err)
	}
	defer release()
	return work()
}

// totalSize returns the total size of files, in bytes.
func totalSize(files [][]byte) int {
	n := 0
	for _, raw := range files {
		n += len(raw)
	}
	return n
}
