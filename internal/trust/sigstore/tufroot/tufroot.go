// Package tufroot fetches the trusted root of a Sigstore instance, trusted_root.json, from a TUF
// repository, and verifies it from a pinned root.json down.
//
// The server of the repository, the mirror, is not trusted: what it serves counts only if the
// top-level roles of the repository have signed it. Versions never go back. A Base remembers what
// was seen, also in its record. Once a top-level file has expired, the trusted root that it lists
// no longer counts, so that a mirror cannot keep an old trusted root in use by serving nothing new.
//
// The package does not read the trusted root itself.
package tufroot

import (
	"context"
	_ "embed" // of the root.json of the public instance
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const (
	// PublicMirror is the URL of the TUF repository of the public instance.
	PublicMirror = "https://tuf-repo-cdn.sigstore.dev"
	// target is the path of the trusted root in the repository.
	target = "trusted_root.json"
	// targetsPath is where the repositories of Sigstore have their targets.
	targetsPath = "/targets"
	// maxProbe bounds the answer to a probe, in bytes.
	maxProbe = 64 << 10
)

// PublicRoot is the initial root.json of the public instance.
//
//go:embed public_root.json
var PublicRoot []byte

// Config describes a repository.
type Config struct {
	// Mirror is the URL of the server. Empty: PublicMirror.
	Mirror string
	// CABundle holds the PEM certificates of the server's CAs. Empty: the system's CAs.
	CABundle string
	// Root is the pinned root.json. Nil: PublicRoot.
	Root []byte
	// Check returns an error if a trusted root cannot be used: the rest of a sentence about it.
	Check func(trustedRoot []byte) error
	// Hosts bounds the requests to a host, over all trust roots.
	Hosts *registry.Hosts
	// Budget bounds the memory of decoding, over all trust roots.
	Budget *budget.Budget
	// Clock returns the time. Nil: time.Now.
	Clock func() time.Time
}

// Source is a repository. It is safe for concurrent use.
type Source struct {
	mirror string
	files  *registry.Files
	client *tufrepo.Client
	check  func([]byte) error
	now    func() time.Time
}

// RootError is the error of a Config whose Root cannot be used.
type RootError struct{ cause error }

func (e *RootError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *RootError) Unwrap() error { return e.cause }

// New returns a source. It sends no request. The error is a *RootError, or names another setting.
func New(cfg Config) (*Source, error) {
	if cfg.Mirror == "" {
		cfg.Mirror = PublicMirror
	}
	cfg.Mirror = strings.TrimRight(cfg.Mirror, "/")
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Root == nil { // an empty one is no root
		cfg.Root = PublicRoot
	}
	files, err := registry.NewFiles(registry.Config{Server: cfg.Mirror, CABundle: cfg.CABundle, Hosts: cfg.Hosts})
	if err != nil {
		return nil, err
	}
	client, err := tufrepo.New(tufrepo.Config{
		Name: cfg.Mirror, Root: cfg.Root, TargetsPath: targetsPath, MaxTarget: trustedroot.MaxSize, Budget: cfg.Budget,
		Clock: cfg.Clock,
	}, files)
	if err != nil {
		return nil, &RootError{err}
	}
	return &Source{mirror: cfg.Mirror, files: files, client: client, check: cfg.Check, now: cfg.Clock}, nil
}

// Mirror returns the URL of the server.
func (s *Source) Mirror() string { return s.mirror }

// Skipped returns the certificates of the CA bundle that cannot be used, and why.
func (s *Source) Skipped() []string { return s.files.Skipped() }

// Probe fetches the file that changes with each publication. The error is a *trust.Fault.
func (s *Source) Probe(ctx context.Context) error {
	_, err := s.files.Get(ctx, "/timestamp.json", maxProbe)
	if errors.Is(err, trust.ErrNotFound) {
		return s.noRepository()
	}
	return err
}

func (s *Source) noRepository() error {
	return trust.NewFault(v1alpha1.ReasonMetadataMissing,
		"%s: the server has no timestamp.json, so this is no TUF repository; check the URL", s.mirror)
}

// Fetch brings the trusted root up to date. It has the contract of trust.Root.Fetch. Evidence of
// another repository, from before an edit, does not bind.
func (s *Source) Fetch(ctx context.Context, held trust.Evidence) (trust.Evidence, error) {
	have := s.own(ctx, held)
	var before *tufrepo.State
	if have != nil {
		before = have.state
	}
	state, err := s.client.Refresh(ctx, before)
	if errors.Is(err, trust.ErrNotFound) {
		return nil, s.noRepository()
	}
	if err != nil {
		return nil, err
	}
	if have != nil && s.client.CheckTarget(state, target, have.trustedRoot) == nil &&
		s.usable(have.trustedRoot) == nil {
		if base, ok := held.(*Base); ok && base.state == state {
			return held, nil
		}
		return s.base(state, have.trustedRoot), nil
	}
	raw, err := s.client.Target(ctx, state, target)
	if errors.Is(err, trust.ErrNotFound) {
		return nil, s.noTarget()
	}
	if err != nil {
		return nil, err
	}
	if err := s.usable(raw); err != nil {
		return nil, err
	}
	return s.base(state, raw), nil
}

func (s *Source) base(state *tufrepo.State, trustedRoot []byte) *Base {
	return &Base{source: s, state: state, trustedRoot: trustedRoot, since: s.now()}
}

func (s *Source) noTarget() error {
	return trust.NewFault(v1alpha1.ReasonMetadataMissing,
		"%s: targets.json lists no %s; publish it, or check the URL", s.mirror, target)
}

// usable returns a *trust.Fault if a trusted root cannot be used.
func (s *Source) usable(trustedRoot []byte) error {
	if err := s.check(trustedRoot); err != nil {
		f := trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
		return f.Within("%s: %s %w", s.mirror, target, f)
	}
	return nil
}

// own returns held as a Base that this Source has verified, if it can be; else nil. What has
// expired still says which versions were seen.
func (s *Source) own(ctx context.Context, held trust.Evidence) *Base {
	base, ok := held.(*Base)
	if !ok || base.source == s {
		return base
	}
	state, _ := s.client.Recheck(ctx, base.state)
	if state == nil || s.client.CheckTarget(state, target, base.trustedRoot) != nil {
		return nil
	}
	own := s.base(state, base.trustedRoot)
	own.since = base.since
	return own
}

// Recheck verifies a trusted root again, without a network. It has the contract of
// trust.Root.Recheck.
func (s *Source) Recheck(held trust.Evidence) (trust.Evidence, error) {
	base, ok := held.(*Base)
	if !ok {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: what is held is no trusted root", s.mirror)
	}
	state, err := s.client.Recheck(context.Background(), base.state)
	if err != nil {
		return nil, err
	}
	next, err := s.verified(state, base.trustedRoot)
	if err != nil {
		return nil, err
	}
	next.since = base.since
	return next, nil
}

// verified returns a trusted root that a State lists. The error is a *trust.Fault.
func (s *Source) verified(state *tufrepo.State, trustedRoot []byte) (*Base, error) {
	err := s.client.CheckTarget(state, target, trustedRoot)
	if errors.Is(err, trust.ErrNotFound) {
		err = s.noTarget()
	}
	if err == nil {
		err = s.usable(trustedRoot)
	}
	if err != nil {
		return nil, err
	}
	return s.base(state, trustedRoot), nil
}

// Base is a verified trusted root with the TUF metadata that lists it. It is immutable.
type Base struct {
	source      *Source
	state       *tufrepo.State
	trustedRoot []byte
	since       time.Time // when this publication was first verified, since the start
}

var (
	_ trust.Evidence = (*Base)(nil)
	_ trust.Sized    = (*Base)(nil)
	_ trust.Dated    = (*Base)(nil)
)

// TrustedRoot returns the trusted_root.json. It must not be changed.
func (b *Base) TrustedRoot() []byte { return b.trustedRoot }

// String says which version of the trusted root it is.
func (b *Base) String() string {
	v := b.state.Versions()
	return fmt.Sprintf("version %d of its root.json and version %d of its targets.json", v.Root, v.Targets)
}

// Hints implements trust.Evidence: it is about no image.
func (*Base) Hints(string) []string { return nil }

// Statements implements trust.Evidence: there are none.
func (*Base) Statements(_, _ string) []trust.Statement { return nil }

// Rejected implements trust.Evidence: there are none.
func (*Base) Rejected([]string, string, string) []trust.Rejection { return nil }

// Signed implements trust.Evidence: the repository's roles have signed it.
func (*Base) Signed() bool { return true }

// Faults implements trust.Evidence: it is verified as a whole.
func (*Base) Faults() []*trust.Fault { return nil }

// Expiry implements trust.Evidence: the first expiry of a top-level file.
func (b *Base) Expiry() (notAfter time.Time, file string) { return b.state.Expiry() }

// Files implements trust.Dated. A repository signs its timestamp anew by itself, long before it
// expires. One that has not done so by the last quarter of the time is at a standstill: a copy that
// nobody updates, for example.
func (b *Base) Files() []trust.File {
	files := b.state.TopLevel()
	for i := range files {
		if f := &files[i]; f.Kind == "timestamp" {
			f.Unattended = b.source.now().Before(f.NotAfter.Add(-f.NotAfter.Sub(b.since) / 4))
		}
	}
	return files
}

// Size implements trust.Sized.
func (b *Base) Size() int64 { return b.state.Size() + int64(len(b.trustedRoot)) + 256 }
