package store

import (
	"maps"
	"slices"

	"github.com/countersign-dev/countersign/internal/policy"
)

// RootNames returns the names of the published trust roots, sorted.
func (s *Snapshot) RootNames() []string { return slices.Sorted(maps.Keys(s.roots)) }

// Policy returns a published policy, nil if there is none.
func (s *Snapshot) Policy(name string) *policy.Policy { return s.policies[name].policy }

// PolicyNames returns the names of the published policies, sorted.
func (s *Snapshot) PolicyNames() []string { return slices.Sorted(maps.Keys(s.policies)) }
