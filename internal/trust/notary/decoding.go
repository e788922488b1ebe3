package notary

import (
	"context"
	"errors"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/trust"
)

// costPerByte bounds the memory that it takes to verify files, for each byte of them: the file, its
// canonical form, room to sort that in, what is made of the targets, and all of it compressed.
const costPerByte = 7

// keyCostPerByte bounds the memory that keys and certificates take, for each byte of them.
const keyCostPerByte = 32

// smallCost is what it takes beside that.
const smallCost = 64 << 10

// cost bounds the memory that it takes to verify files of so many bytes.
func cost(bytes int) int64 {
	return int64(bytes)*costPerByte + int64(min(bytes, maxFileKeys))*keyCostPerByte + smallCost
}

// decoding runs work, which verifies files of so many bytes without a network, as soon as the
// budget has room for what that costs. The error is that of work, or a *trust.Fault.
func (r *Root) withinBudget(ctx context.Context, repository string, bytes int, work func() error) error {
	giveBack, err := r.budget.Take(ctx, cost(bytes))
	if _, tooLarge := errors.AsType[*budget.TooLargeError](err); tooLarge {
		return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: %w", repository, err)
	}
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonTimeout, "%s: %w", repository, err)
	}
	defer giveBack()
	return work()
}

// total is how many bytes files have together.
func totalSize(files [][]byte) int {
	n := 0
	for _, raw := range files {
		n += len(raw)
	}
	return n
}
