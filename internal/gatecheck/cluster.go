package gatecheck

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	// interval is the time between two requests.
	interval = time.Second
	// requestTimeout is longer than an API server waits for both webhooks.
	requestTimeout = 25 * time.Second
)

// New returns a check of the gate, whose webhooks have these names, in the namespace of a cluster.
func New(config *rest.Config, namespace, validating, mutating string, out io.Writer) (*Check, error) {
	warned := &warnings{}
	config = rest.CopyConfig(config)
	config.Timeout, config.WarningHandler = requestTimeout, warned
	core, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &Check{
		Pods: core.Pods(namespace), Warnings: warned.take, Validating: validating, Mutating: mutating,
		Interval: interval, Out: out,
	}, nil
}

// warnings collects what an API server warns of.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// take returns the warnings since it was called last.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := slices.Clone(w.texts)
	w.texts = nil
	return taken
}
