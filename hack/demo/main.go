// Command demo shows the gate on real servers. It starts a Kubernetes control plane, the registry
// and servers of a story, and the manager on this machine's loopback interface. It signs images and
// runs kubectl commands. The story is Docker Content Trust (dct), Sigstore (sigstore), one image in
// all signature formats (formats), or the move from Docker Content Trust to cosign (migration).
// Each step explains itself and checks the output; the first unexpected output ends the demo with
// exit status 1. The demo stops all servers when it ends, also after Ctrl-C.
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
	name := flag.String("story", "dct", "what to show: dct, sigstore, formats or migration")
	flag.Parse()
	ctrl.SetLogger(logr.Discard()) // keep the logs of the clients out of the transcript
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Stdout, *name, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, name string, keep bool) (err error) {
	start := time.Now()
	env := &environment{out: out}
	d := &demo{environment: env}
	told, ok := stories(d)[name]
	if !ok {
		return fmt.Errorf("there is no story %q: use dct, sigstore, formats or migration", name)
	}
	defer func() {
		failed := err != nil && ctx.Err() == nil
		if failed {
			fmt.Fprintf(out, "\n%s\nAll logs are kept in %s.\n", env.tail(), env.dir)
		}
		fmt.Fprintln(out, "\nStopping all servers.")
		err = errors.Join(err, env.stop(failed))
	}()
	if err := env.start(ctx, told.servers()...); err != nil {
		return interrupted(ctx, err)
	}
	for i, s := range told.steps() {
		if err := d.run(ctx, i+1, s); err != nil {
			return interrupted(ctx, fmt.Errorf("step %d, %q: %w", i+1, s.title, err))
		}
	}
	fmt.Fprintf(out, "\nEvery step went as expected (%s).\n", time.Since(start).Round(time.Second))
	if !keep {
		return nil
	}
	if err := told.keep(ctx); err != nil {
		return interrupted(ctx, err)
	}
	<-ctx.Done()
	return nil
}

// interrupted replaces the error of a step that failed because of Ctrl-C.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	return err
}
