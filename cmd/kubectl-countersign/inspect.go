package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/inspection"
	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/seenkeys"
)

const inspectExample = `  # Who signed which tag and digest of a repository, under the trust roots in a folder.
  kubectl countersign inspect registry.example.com/acme/app --policies policies/

  # One tag, under one trust root of the cluster.
  kubectl countersign inspect registry.example.com/acme/app:v1 --trust-root acme-sigstore

  # How far repositories have moved from one format to another: a row each, and a column a role.
  kubectl countersign inspect --summary registry.example.com/acme/app registry.example.com/acme/web`

// inspectFlags are the flags of inspect beside those of the engine.
type inspectFlags struct {
	engine  *engineFlags
	output  *output
	roots   []string
	maxTags int
	summary bool
	seen    *seenFlags
}

// newInspect returns the command inspect.
func newInspect(e *environment) *cobra.Command {
	f := &inspectFlags{}
	c := &cobra.Command{
		Use:   "inspect IMAGE|REPOSITORY...",
		Short: "Show who signed which image",
		Long: `Show who signed which image: a row for each tag and digest, and a column for each role.

A repository without a tag or digest shows all its tags: those that are signed, and those of the
registry. The trust roots are those of the policies that match the repository, or where none does,
all. A key that was never seen before in a repository that is known is marked as new.

Exit codes: 0 done, 2 something could not be checked, 3 wrong usage or any other error.`,
		Example: inspectExample,
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return e.inspect(c.Context(), f, args) },
	}
	f.engine, f.output, f.seen = e.addEngine(c), addOutput(c), addSeen(c)
	c.Flags().StringSliceVar(&f.roots, "trust-root", nil, "use these trust roots alone")
	c.Flags().IntVar(&f.maxTags, "max-tags", 200, "how many tags of a repository are shown")
	c.Flags().BoolVar(&f.summary, "summary", false,
		"one row a repository: how many of its images each role has signed, by format")
	return c
}

// inspected is a repository with the roles that its policies expect.
type inspected struct {
	inspection.Repository

	// Roles are the roles of the policies that match the repository.
	Roles []string `json:"roles"`
}

// inspect runs the command.
func (e *environment) inspect(ctx context.Context, f *inspectFlags, args []string) error {
	refs, err := parseReferences(args)
	if err != nil {
		return err
	}
	if f.maxTags < 1 {
		return errors.New("--max-tags must be at least 1")
	}
	engine, err := e.newEngine(ctx, f.engine)
	if err != nil {
		return err
	}
	for _, root := range f.roots {
		if engine.Store.Load().Root(root) == nil {
			names := cmp.Or(strings.Join(engine.Store.Load().RootNames(), ", "), "none at all")
			return fmt.Errorf("--trust-root: there is no TrustRoot %q; there are: %s", root, names)
		}
	}
	stop := e.progress(fmt.Sprintf("reading the signatures of %s...", strings.Join(args, ", ")))
	defer stop()
	inspector := inspection.Inspector{
		Store: engine.Store, Tracker: engine.Tracker, Now: engine.Clock.Now, Namespace: e.namespace(f.engine),
		Tags: listTags, MaxTags: f.maxTags,
	}
	ctx, cancel := context.WithTimeout(ctx, f.engine.timeout)
	defer cancel()
	all := make([]inspected, 0, len(refs))
	for i, ref := range refs {
		whole := !strings.Contains(args[i][strings.LastIndex(args[i], "/")+1:], ":") && ref.Digest == ""
		all = append(all, inspectOne(ctx, &inspector, engine, f.roots, ref, whole))
	}
	stop()
	e.noteInspected(f.seen, all, engine.Clock.Now())
	if err := e.printInspected(f, all); err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r inspected) bool { return r.Faulty() }) {
		return errCouldNotCheck
	}
	return nil
}

// inspectOne inspects one image or repository, under the named trust roots or those of its
// policies.
func inspectOne(ctx context.Context, inspector *inspection.Inspector, engine *preview.Engine, roots []string,
	ref imageref.Ref, whole bool) inspected {
	relevant, roles := inspection.Relevant(engine.Source.ImagePolicies, ref)
	if len(roots) == 0 {
		roots = relevant
	}
	if len(roots) == 0 {
		roots = engine.Store.Load().RootNames()
	}
	return inspected{Repository: inspector.Inspect(ctx, ref, whole, roots, roles), Roles: roles}
}

func parseReferences(args []string) ([]imageref.Ref, error) {
	refs := make([]imageref.Ref, 0, len(args))
	for _, arg := range args {
		ref, err := imageref.Parse(arg)
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", arg, err)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// listTags lists the tags of a repository in its registry, with the credentials of Docker's
// configuration.
func listTags(ctx context.Context, repository string) ([]string, error) {
	parsed, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	return remote.List(parsed, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(registry.LimitTransport(remote.DefaultTransport)))
}

// noteInspected adds to each key when it was first seen, and warns of the new ones.
func (e *environment) noteInspected(f *seenFlags, all []inspected, now time.Time) {
	e.noteKeys(f, func(seen *seenkeys.Keys) {
		for _, r := range all {
			for i := range r.Images {
				for j := range r.Images[i].Signatures {
					s := &r.Images[i].Signatures[j]
					for k := range s.Keys {
						first, isNew := seen.Note(r.Name, s.Role, s.Keys[k].ID, now)
						s.Keys[k].FirstSeen, s.Keys[k].New = &first, isNew
						if isNew {
							e.warnNewKey(r.Name, s.Role, s.Keys[k].ID, s.TrustRoot)
						}
					}
				}
			}
		}
	})
}

func (e *environment) printInspected(f *inspectFlags, all []inspected) error {
	if f.output.format != "text" {
		return f.output.encode(e.Out, map[string]any{"repositories": all})
	}
	if f.summary {
		repositories, roles := make([]inspection.Repository, 0, len(all)), map[string]bool{}
		for _, r := range all {
			repositories = append(repositories, r.Repository)
			for _, role := range r.Roles {
				roles[role] = true
			}
		}
		return inspection.WriteSummary(e.Out, repositories, slices.Sorted(maps.Keys(roles)))
	}
	for _, r := range all {
		if err := r.Write(e.Out, r.Roles); err != nil {
			return err
		}
	}
	return nil
}
