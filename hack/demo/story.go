package main

import "context"

// story is one demo: its servers, and the steps that use them.
type story interface {
	// servers are started in order, before the control plane and the manager. The story gives each
	// to stopLater.
	servers() []server
	// steps returns the steps in order. Each depends on the ones before it.
	steps() []step
	// keep makes every server answer after the last step, and prints what to try.
	keep(ctx context.Context) error
}

// stories returns each story by its name.
func stories(d *demo) map[string]story {
	return map[string]story{
		"dct":       &dct{demo: d},
		"formats":   &formats{demo: d},
		"migration": &migration{demo: d},
		"sigstore":  &sigstore{demo: d},
	}
}
