package simplesigning

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxSignatures bounds the signatures on a digest that are read.
	maxSignatures = 64
	// maxSignature bounds one signature, in bytes. A bound on all of them together would let a
	// large one keep out those that follow.
	maxSignature = 64 << 10
	// window is how many signatures are requested at one time: where they end is known only from
	// the first one that does not exist.
	window = 4
	// maxFaults bounds the faults of single signatures that are remembered.
	maxFaults = 4
)

// source has the signatures on digests.
type source interface {
	// fetch returns the signatures on the digest of a subject, and what could not be fetched.
	fetch(ctx context.Context, about *trust.Subject) (all []kept, faults []*trust.Fault)
}

// fromRegistry is the signature extension of the image's registry.
type fromRegistry struct {
	registry interface {
		Signatures(ctx context.Context, repository, digest string) ([][]byte, error)
	}
}

func (r fromRegistry) fetch(ctx context.Context, about *trust.Subject) (all []kept, faults []*trust.Fault) {
	list, err := r.registry.Signatures(ctx, about.Pulled, about.Digest)
	if err != nil {
		return nil, []*trust.Fault{trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer)}
	}
	if len(list) > maxSignatures {
		list = list[:maxSignatures]
		faults = append(faults, tooMany(about.Pulled+"@"+about.Digest))
	}
	for i, data := range list {
		all = append(all, keep(fmt.Sprintf("signature %d of the registry", i+1), data))
	}
	return all, faults
}

// fromLookaside is a lookaside server.
type fromLookaside struct{ files *registry.Files }

// fetch requests signature-1 and so on, up to the first one that does not exist. A signature that
// cannot be fetched hides none that follow it.
func (l fromLookaside) fetch(ctx context.Context, about *trust.Subject) (all []kept, faults []*trust.Fault) {
	ref, err := imageref.Parse(about.Repository)
	if err != nil {
		return nil, []*trust.Fault{trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", about, err)}
	}
	base := "/" + ref.Path + "@" + strings.Replace(about.Digest, ":", "=", 1) + "/signature-"
	for first := 1; first <= maxSignatures; first += window {
		got := l.window(ctx, base, first)
		failed := 0
		for i := range got {
			switch f := &got[i]; {
			case errors.Is(f.err, trust.ErrNotFound):
				return all, faults
			case f.err != nil:
				if !f.page {
					failed++
				}
				if len(faults) < maxFaults {
					faults = append(faults, trust.AsFault(f.err, v1alpha1.ReasonUnexpectedAnswer))
				}
			default:
				all = append(all, f.kept)
			}
		}
		if failed == window { // the server is down, or refuses everything
			return all, faults
		}
	}
	if _, err := l.files.Get(ctx, fmt.Sprintf("%s%d", base, maxSignatures+1), maxSignature); !errors.Is(err,
		trust.ErrNotFound) {
		faults = append(faults, tooMany(about.Repository+"@"+about.Digest))
	}
	return all, faults
}

// fetched is one signature, or the error of fetching it.
type fetched struct {
	kept
	err error
	// page says that the answer was a web page, which anyone may have put there.
	page bool
}

func (l fromLookaside) window(ctx context.Context, base string, first int) []fetched {
	got := make([]fetched, window)
	var all errgroup.Group
	for i := range got {
		all.Go(func() error {
			got[i] = l.one(ctx, base, first+i)
			return nil
		})
	}
	_ = all.Wait() // no function returns an error
	return got
}

func (l fromLookaside) one(ctx context.Context, base string, n int) fetched {
	file, name := fmt.Sprintf("%s%d", base, n), fmt.Sprintf("signature-%d", n)
	data, err := l.files.Get(ctx, file, maxSignature)
	switch {
	case err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonTooLarge:
		return fetched{kept: kept{Name: name, Why: tooLong}}
	case err != nil:
		return fetched{err: err}
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("<")):
		return fetched{page: true, err: trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the answer is a web page and no signature: perhaps that of a login or a proxy; check "+
				"spec.simpleSigning.lookaside", file)}
	}
	return fetched{kept: keep(name, data)}
}

const tooLong = "has more than 64 KiB, which no signature has"

func keep(name string, data []byte) kept {
	if len(data) > maxSignature {
		return kept{Name: name, Why: tooLong}
	}
	return kept{Name: name, Data: data}
}

func tooMany(where string) *trust.Fault {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: more than %d signatures, of which only the first %d are read; "+
		"remove those that are not needed", where, maxSignatures, maxSignatures)
}
