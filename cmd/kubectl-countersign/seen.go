package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/inspection"
	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/seenkeys"
)

// seenFlags say where the keys are remembered that were seen before.
type seenFlags struct{ file string }

// addSeen adds --seen-keys to a command.
func addSeen(c *cobra.Command) *seenFlags {
	f := &seenFlags{}
	c.Flags().StringVar(&f.file, "seen-keys", "",
		"file that remembers which keys have signed, to warn of new ones; none: remember nothing "+
			"(default: countersign/seen-keys.json in the user's configuration)")
	return f
}

// noteKeys calls note with the keys that were seen before, and remembers those that it notes. What
// is wrong with the file is a warning: the keys are for the reader, and decide nothing.
func (e *environment) noteKeys(f *seenFlags, note func(*seenkeys.Keys)) {
	usual, _ := seenkeys.Path()
	path := cmp.Or(f.file, usual)
	if path == "none" || path == "" {
		return // without a home, as in a pipeline, nothing is remembered
	}
	seen, err := seenkeys.Read(path)
	if err != nil {
		e.warn("no new key can be recognised: %v", err)
		return
	}
	note(seen)
	if err := seen.Write(); err != nil {
		e.warn("the keys seen could not be remembered: %v", err)
	}
}

// warnNewKey warns of a key.
func (e *environment) warnNewKey(repository, role, key, root string) {
	e.warn("%s: a key that was never seen before has signed for role %q: %s (TrustRoot %q)", repository, role, key,
		root)
}

// noteVerified remembers the keys that signed the images of a report, and warns of the new ones.
func (e *environment) noteVerified(f *seenFlags, engine *preview.Engine, report preview.Report) {
	snapshot, now := engine.Store.Load(), engine.Clock.Now()
	e.noteKeys(f, func(seen *seenkeys.Keys) {
		for _, w := range report.Workloads {
			for _, image := range w.Images {
				ref, err := imageref.Parse(image.Image)
				if err != nil || image.Digest == "" {
					continue
				}
				ref.Digest = image.Digest
				for _, s := range inspection.Known(snapshot, ref, w.Namespace, now) {
					for _, key := range s.Keys {
						if _, isNew := seen.Note(ref.Name(), s.Role, key.ID, now); isNew {
							e.warnNewKey(ref.Name(), s.Role, key.ID, s.TrustRoot)
						}
					}
				}
			}
		}
	})
}
