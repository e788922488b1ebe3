// Command demo shows the gate at work. It starts a Kubernetes control plane, a Notary server with
// its signer, a registry and the manager on this machine's loopback interface, signs images with
// the real notary client, and runs real kubectl commands against them. Each step says what it shows
// and checks the answer; the first unexpected one ends the demo with a status other than 0.
// Whatever it started it stops, also on Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	keep := flag.Bool("keep", os.Getenv("KEEP") != "",
		"leave everything running at the end, until Ctrl-C (also: KEEP=1)")
	flag.Parse()
	ctrl.SetLogger(logr.Discard()) // what its clients would log is none of the demo's output
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Stdout, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, keep bool) (err error) {
	start := time.Now()
	env := &environment{out: out}
	defer func() {
		failed := err != nil && ctx.Err() == nil
		if failed {
			fmt.Fprintf(out, "\n%s\nAll logs stay in %s.\n", env.tail(), env.dir)
		}
		fmt.Fprintln(out, "\nStopping everything that was started.")
		err = errors.Join(err, env.stop(failed))
	}()
	if err := env.start(ctx); err != nil {
		return interrupted(ctx, err)
	}
	d := &demo{environment: env}
	for i, s := range steps() {
		if err := d.run(ctx, i+1, s); err != nil {
			return interrupted(ctx, fmt.Errorf("step %d, %q: %w", i+1, s.title, err))
		}
	}
	fmt.Fprintf(out, "\nEvery step went as expected (%s).\n", time.Since(start).Round(time.Second))
	if !keep {
		return nil
	}
	if err := env.server(up); err != nil {
		return err
	}
	env.explain()
	<-ctx.Done()
	return nil
}

// interrupted says so where a Ctrl-C is what made a step fail.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	return err
}
