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
	// requestTimeout is longer than the API server's timeouts for both webhooks together.
	requestTimeout = 25 * time.Second
)

// New returns a check of the gate, in a namespace of a cluster. validating and mutating are the
// names of the gate's webhooks.
func New(config *rest.Config, namespace, validating, mutating string, out io.Writer) (*Check, error) {
	warned := &warnings{}
	config = rest.CopyConfig(config)
	config.Timeout, config.WarningHandler = requestTimeout, warned
	core, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("creating a client: %w", err)
	}
	return &Check{
		Pods: core.Pods(namespace), Warnings: warned.drain, Validating: validating, Mutating: mutating,
		Interval: interval, Out: out,
	}, nil
}

// warnings collects the warnings of an API server.
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

// drain returns the warnings since the last call.
func (w *warnings) drain() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	drained := slices.Clone(w.texts)
	w.texts = nil
	return drained
}
