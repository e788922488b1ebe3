package main

import (
	"context"
	"os"

	"github.com/countersign-dev/countersign/controllers/gate"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/gatecheck"
)

// checkGate runs the command check-gate, which tests the gate of a cluster from outside.
func checkGate(ctx context.Context, args []string) error {
	o, err := gatecheck.Parse(args)
	if err != nil {
		return err
	}
	config, err := cluster.Config(o.Kubeconfig)
	if err != nil {
		return err
	}
	check, err := gatecheck.New(config, o.Namespace, gate.ValidatingWebhookName, gate.MutatingWebhookName, os.Stdout)
	if err != nil {
		return err
	}
	return check.Run(ctx, o)
}
