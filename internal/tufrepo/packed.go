package tufrepo

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// packedHeader begins the packed form, with its version.
const packedHeader = "tufrepo1"

// maxPacked bounds the files of a packed State together, in bytes.
const maxPacked = maxTotalSize + maxRoots*maxRootSize + maxTimestampSize + maxSnapshotSize + maxTargetsSize

// packedFile is a file of a packed State.
type packedFile struct {
	name string
	raw  []byte
}

// Pack encodes a State: its files, compressed. It is the same for the same files.
func (s *State) Pack() []byte {
	var all []packedFile
	for _, r := range s.roots[1:] {
		all = append(all, packedFile{rootRole, r.raw})
	}
	all = append(all, packedFile{timestampRole, s.timestamp.raw}, packedFile{snapshotRole, s.snapshot.raw},
		packedFile{targetsRole, s.targets.raw})
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		all = append(all, packedFile{name, s.files[name].raw})
	}
	size := 0
	for _, f := range all {
		size += len(f.raw) + len(f.name) + 2*binary.MaxVarintLen64
	}
	var out bytes.Buffer
	out.WriteString(packedHeader)
	out.Write(binary.AppendUvarint(nil, uint64(size)))
	w := gzip.NewWriter(&out)
	for _, f := range all {
		for _, part := range [][]byte{[]byte(f.name), f.raw} {
			_, _ = w.Write(binary.AppendUvarint(nil, uint64(len(part)))) // a bytes.Buffer never fails
			_, _ = w.Write(part)
		}
	}
	_ = w.Close()
	return out.Bytes()
}

// Unpack decodes what Pack has encoded, and verifies all of it again from the pinned root, without
// a network. It trusts nothing in it but signatures. It returns held itself if that is as new.
//
// The error is a *trust.Fault. With reason MetadataExpired the State that comes with it proves
// nothing: it remembers the versions seen, for Refresh. The grace of the Client applies.
func (c *Client) Unpack(ctx context.Context, packed []byte, held *State) (*State, error) {
	files, err := c.unpackFiles(ctx, packed)
	if err != nil {
		return nil, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid).Within("%s: the record cannot be used: %w",
			c.name, err)
	}
	if err := c.check(held); err != nil {
		return nil, err
	}
	s := &State{roots: []*rootFile{c.pin}, files: map[string]*targetsFile{}, edges: map[edge]verdict{}}
	delegated := map[string][]byte{}
	for _, f := range files {
		if err := c.addTopLevel(ctx, s, f, delegated); err != nil {
			return nil, c.fault(f.name+".json", err)
		}
	}
	if s.targets == nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record is incomplete", c.name)
	}
	if newer, err := c.newer(ctx, s, held); !newer || err != nil {
		return held, err
	}
	if err := c.checkExpiry(s, c.now().Add(-c.grace)); err != nil {
		s.expired = true
		return s, err
	}
	return s, c.addDelegated(ctx, s, delegated)
}

// Recheck verifies a State that another Client of the same repository obtained, as Unpack does.
func (c *Client) Recheck(ctx context.Context, held *State) (*State, error) {
	return c.Unpack(ctx, held.Pack(), nil)
}

// newer reports whether a State adds something to held, and undercuts none of the versions that
// bind: a newer root alone does not reset them.
func (c *Client) newer(ctx context.Context, s, held *State) (bool, error) {
	if held == nil {
		return true, nil
	}
	is, was := s.Versions(), held.Versions()
	if is.Root < was.Root {
		return false, nil
	}
	before, err := c.versionsToKeep(ctx, held, s.root())
	if err != nil {
		return false, err
	}
	undercuts := before != nil &&
		(is.Timestamp < was.Timestamp || s.snapshot.checkNoRollback(before.snapshot) != nil)
	if undercuts {
		return false, nil
	}
	return is != was || held.expired || len(s.files) > len(held.files), nil
}

// addTopLevel verifies a file and adds it. Delegated files go to delegated. Roots up to the pinned
// one add nothing.
func (c *Client) addTopLevel(ctx context.Context, s *State, f packedFile, delegated map[string][]byte) error {
	switch {
	case f.name == rootRole && s.timestamp == nil:
		var version int64
		err := c.withinBudget(ctx, f.raw, func() error {
			r, _, err := openRoot(f.raw)
			if err == nil {
				version = r.version
			}
			return err
		})
		if err != nil || version <= c.pin.version {
			return err
		}
		if len(s.roots) > maxRoots {
			return trust.NewFault(v1alpha1.ReasonTooLarge, "it has more than %d roots", maxRoots)
		}
		r, err := c.nextRoot(ctx, s.root(), f.raw)
		if err == nil {
			s.roots = append(s.roots, r)
		}
		return err
	case f.name == timestampRole && s.timestamp == nil:
		return c.withinBudget(ctx, f.raw, func() (err error) {
			s.timestamp, err = c.verifyTimestamp(s.root(), f.raw)
			return err
		})
	case f.name == snapshotRole && s.timestamp != nil && s.snapshot == nil:
		return c.withinBudget(ctx, f.raw, func() (err error) {
			s.snapshot, err = c.verifySnapshot(s.root(), s.timestamp.snapshot, f.raw)
			return err
		})
	case f.name == targetsRole && s.snapshot != nil && s.targets == nil:
		return c.withinBudget(ctx, f.raw, func() (err error) {
			s.targets, err = c.verifyTargets(s.root(), s.snapshot.listed[targetsRole], f.raw)
			return err
		})
	case s.targets != nil && delegated[f.name] == nil:
		delegated[f.name] = f.raw
		return nil
	}
	return errors.New("the files are not in their order")
}

// addDelegated verifies the delegated files of a record. One that does not match the snapshot, or
// that no delegation leads to, is dropped: Load fetches it again.
func (c *Client) addDelegated(ctx context.Context, s *State, delegated map[string][]byte) error {
	answers, failed := map[string]fetched{}, map[edge]bool{}
	for name, raw := range delegated {
		if _, listed := s.snapshot.listed[name]; listed {
			answers[name] = fetched{raw: raw}
		}
	}
	for {
		progress := false
		for _, e := range s.unverified(true) {
			name, _ := e.child()
			if _, ok := answers[name]; !ok || failed[e] {
				continue
			}
			if err := c.addEdge(ctx, s, e, answers); err != nil {
				if ctx.Err() != nil {
					return err
				}
				failed[e] = true
			}
			progress = true
		}
		if !progress {
			return nil
		}
	}
}

// unpackFiles decompresses a record within the bounds.
func (c *Client) unpackFiles(ctx context.Context, packed []byte) ([]packedFile, error) {
	rest, ok := bytes.CutPrefix(packed, []byte(packedHeader))
	size, n := binary.Uvarint(rest)
	if !ok || n <= 0 {
		return nil, errors.New("it is of another kind")
	}
	if size > maxPacked {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "it has more than %d bytes", maxPacked)
	}
	var files []packedFile
	err := c.acquire(ctx, 2*int64(size)+fixedCost, func() error {
		z, err := gzip.NewReader(bytes.NewReader(rest[n:]))
		if err != nil {
			return err
		}
		var all bytes.Buffer
		all.Grow(int(min(size, uint64(len(rest))*1024)))                           //nolint:gosec // bounded
		if _, err := io.Copy(&all, io.LimitReader(z, int64(size)+1)); err != nil { //nolint:gosec // bounded
			return err
		}
		if uint64(all.Len()) > size { //nolint:gosec // not negative
			return errors.New("it has more bytes than it says")
		}
		files, err = splitFiles(all.Bytes())
		return err
	})
	return files, err
}

func splitFiles(data []byte) ([]packedFile, error) {
	part := func() ([]byte, error) {
		n, used := binary.Uvarint(data)
		if used <= 0 || n > uint64(len(data)-used) { //nolint:gosec // not negative
			return nil, errors.New("it ends too early")
		}
		p := data[used : used+int(n)] //nolint:gosec // within data
		data = data[used+int(n):]     //nolint:gosec // within data
		return bytes.Clone(p), nil
	}
	var files []packedFile
	for len(data) > 0 {
		if len(files) > maxFiles+maxRoots+3 {
			return nil, fmt.Errorf("it has more than %d files", maxFiles)
		}
		name, err := part()
		if err != nil {
			return nil, err
		}
		raw, err := part()
		if err != nil {
			return nil, err
		}
		files = append(files, packedFile{string(name), raw})
	}
	return files, nil
}
