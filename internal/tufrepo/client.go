package tufrepo

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// Limits of files in bytes, where no signed length is shorter.
	maxRootSize      = 512 << 10
	maxTimestampSize = 64 << 10
	maxSnapshotSize  = 4 << 20
	maxTargetsSize   = 8 << 20
	// maxRoots bounds the roots between the pinned one and the newest one.
	maxRoots = 64
	// maxFiles and maxTotalSize bound the delegated files that a State holds, in number and bytes.
	maxFiles     = 4096
	maxTotalSize = 64 << 20
	// maxParallel bounds the requests for delegated files at a time.
	maxParallel = 8
	// defaultMaxTarget bounds a target, in bytes.
	defaultMaxTarget = 4 << 20
)

// Getter fetches files from the server of the repository. registry.Files is one.
type Getter interface {
	// Get returns the file at an escaped path such as /1.root.json, of at most limit bytes. The
	// error satisfies errors.Is(err, trust.ErrNotFound) if the server has no such file, and is a
	// *trust.Fault otherwise.
	Get(ctx context.Context, file string, limit int64) ([]byte, error)
}

// Config describes a repository. Name and Root are required.
type Config struct {
	// Name is what messages call the repository, such as its URL.
	Name string
	// Root is the pinned root.json. It may have expired: newer roots are verified from it.
	Root []byte
	// MetadataPath and TargetsPath are the folders of the metadata and of the targets on the
	// server, as escaped paths such as /metadata. Empty: the server's URL itself.
	MetadataPath, TargetsPath string
	// RevokedKeys are key IDs that never count, in whatever role. A key has several IDs, and each
	// of them revokes it: the listed one, and those that the specification computes.
	RevokedKeys []string
	// ExpiredGrace is how long Unpack accepts metadata after its expiry. Fetched files have none.
	ExpiredGrace time.Duration
	// MaxTarget bounds a target in bytes. Zero: 4 MiB.
	MaxTarget int64
	// Budget bounds the memory of decoding. Nil: the Client has its own.
	Budget *budget.Budget
	// Clock returns the time for expiry checks. Nil: time.Now.
	Clock func() time.Time
}

// Client verifies one repository. It holds no state of its own and is safe for concurrent use.
type Client struct {
	name, metadata, targets string
	getter                  Getter
	pin                     *rootFile
	revoked                 map[string]bool
	grace                   time.Duration
	maxTarget               int64
	budget                  *budget.Budget
	now                     func() time.Time
}

// New returns a client. It sends no request. The error is a *trust.Fault with reason InvalidKey:
// the root cannot be read, or is not signed by its own keys.
func New(cfg Config, get Getter) (*Client, error) {
	c := &Client{
		name: cfg.Name, metadata: cfg.MetadataPath, targets: cfg.TargetsPath, getter: get,
		revoked: map[string]bool{}, grace: max(cfg.ExpiredGrace, 0),
		maxTarget: cmp.Or(cfg.MaxTarget, defaultMaxTarget), budget: cfg.Budget, now: cfg.Clock,
	}
	if c.budget == nil {
		c.budget = budget.New(budget.Default)
	}
	if c.now == nil {
		c.now = time.Now
	}
	for _, id := range cfg.RevokedKeys {
		c.revoked[id] = true
	}
	if len(cfg.Root) > maxRootSize {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "the pinned root has more than %d bytes", maxRootSize)
	}
	pin, e, err := openRoot(cfg.Root)
	if err == nil {
		_, err = pin.roles[rootRole].verify(e, c.revoked)
	}
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "the pinned root is no usable root.json: %w", err)
	}
	c.pin = pin
	return c, nil
}

// RootKeys returns the IDs of the root keys of the pinned root, sorted.
func (c *Client) RootKeys() []string {
	var ids []string
	r := c.pin.roles[rootRole]
	for _, listed := range r.keyIDs {
		if k, err := parseKey(listed, r.keys[listed]); err == nil {
			ids = append(ids, k.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// costPerByte and costPerValue bound the memory to verify a file: the file, its canonical form, a
// buffer to sort it, and what is decoded of it.
const (
	costPerByte  = 6
	costPerValue = 48
	fixedCost    = 64 << 10
)

// withinBudget waits until the memory budget has enough left, and then runs work, which verifies a
// file and uses no network. The error is the error of work or a *trust.Fault.
func (c *Client) withinBudget(ctx context.Context, raw []byte, work func() error) error {
	values, _ := jsonscan.Count(raw, canonicaljson.MaxValues+1)
	cost := int64(len(raw))*costPerByte + int64(values)*costPerValue + fixedCost
	return c.acquire(ctx, cost, work)
}

func (c *Client) acquire(ctx context.Context, cost int64, work func() error) error {
	release, err := c.budget.Acquire(ctx, cost)
	if _, tooLarge := errors.AsType[*budget.TooLargeError](err); tooLarge {
		return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: %w", c.name, err)
	}
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonTimeout, "%s: %w", c.name, err)
	}
	defer release()
	return work()
}

// fault returns the error about a file as a *trust.Fault that names repository and file.
func (c *Client) fault(file string, err error) error {
	f := trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	return f.Within("%s: %s: %w", c.name, file, f)
}

// get fetches a file of the metadata or of the targets.
func (c *Client) get(ctx context.Context, file string, limit int64) ([]byte, error) {
	raw, err := c.getter.Get(ctx, file, limit)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		return nil, err
	case err != nil:
		f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
		return nil, f.Within("%s: fetching %s: %w", c.name, file, f)
	case int64(len(raw)) > limit:
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "%s: %s has more than the %d bytes that it may have",
			c.name, file, limit)
	}
	return raw, nil
}

// getListed is get for a file that signed metadata names. A missing one is a fault.
func (c *Client) getListed(ctx context.Context, file string, limit int64) ([]byte, error) {
	raw, err := c.get(ctx, file, limit)
	if errors.Is(err, trust.ErrNotFound) {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataMissing,
			"%s: the server has no %s, though signed metadata lists it; publish the repository again", c.name, file)
	}
	return raw, err
}
