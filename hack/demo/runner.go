package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// step shows one behaviour. why explains it to the reader; run executes it and checks the output.
type step struct {
	title, why string
	run        func(context.Context) error
}

// demo runs steps in an environment and prints every command with its output.
type demo struct {
	*environment
}

func (d *demo) run(ctx context.Context, number int, s step) error {
	fmt.Fprintf(d.out, "\n\n== %d. %s\n\n%s\n", number, s.title, s.why)
	return s.run(ctx)
}

// say prints a sentence between commands.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "\n"+format+"\n", args...)
}

// command prints a command line, as a shell takes it.
func (d *demo) command(line string) { fmt.Fprintf(d.out, "$ %s\n", line) }

// comment prints a comment before command lines.
func (d *demo) comment(text string) { fmt.Fprintf(d.out, "\n# %s\n", text) }

// answer is the output of a command, and whether it failed.
type answer struct {
	command, output string
	failed          bool
}

// kubectl runs kubectl, and prints the command as a shell takes it, with its output.
func (d *demo) kubectl(ctx context.Context, args ...string) answer {
	return d.kubectlWith(ctx, "", args...)
}

// kubectlWith is kubectl with standard input, which it prints as well.
func (d *demo) kubectlWith(ctx context.Context, stdin string, args ...string) answer {
	return d.kubectlShowing(ctx, stdin, strings.TrimSpace(stdin), args...)
}

// apply applies a manifest, and prints it without the inner lines of long texts.
func (d *demo) apply(ctx context.Context, manifest string) answer {
	return d.kubectlShowing(ctx, manifest, abridged(manifest), "apply", "-f", "-")
}

// kubectlShowing is kubectl with standard input, of which it prints shown.
func (d *demo) kubectlShowing(ctx context.Context, stdin, shown string, args ...string) answer {
	command := "kubectl " + strings.Join(quoted(args), " ")
	fmt.Fprintln(d.out)
	if stdin != "" {
		command += " <<EOF\n" + shown + "\nEOF"
	}
	d.command(command)
	a := d.quiet(ctx, stdin, args...)
	fmt.Fprint(d.out, a.output)
	return a
}

// quiet runs kubectl and prints nothing.
func (d *demo) quiet(ctx context.Context, stdin string, args ...string) answer {
	output, err := d.kube.RunKubectl(ctx, stdin, args...)
	return answer{command: "kubectl " + strings.Join(args, " "), output: output, failed: err != nil}
}

// quoted returns args with quotes around those that a shell would split or expand.
func quoted(args []string) []string {
	all := slices.Clone(args)
	for i, a := range all {
		if strings.ContainsAny(a, " {}[]()*$\"'\\|&;<>?") {
			all[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return all
}

// succeeds returns an error unless the command succeeded and printed all of words.
func (a answer) succeeds(words ...string) error {
	if a.failed {
		return a.unexpected("success")
	}
	return a.says(words...)
}

// denied returns an error unless the webhook denied the request with a message that has all of
// words.
func (a answer) denied(words ...string) error {
	if !a.failed || !strings.Contains(a.output, "denied the request") {
		return a.unexpected("a denial by the admission webhook")
	}
	return a.says(words...)
}

func (a answer) says(words ...string) error {
	for _, w := range words {
		if !strings.Contains(a.output, w) {
			return a.unexpected(fmt.Sprintf("output that contains %q", w))
		}
	}
	return nil
}

func (a answer) unexpected(want string) error {
	return fmt.Errorf("unexpected output\n  command:  %s\n  expected: %s\n  got:      %s",
		a.command, want, strings.ReplaceAll(strings.TrimSpace(a.output), "\n", "\n            "))
}

// until calls try at each interval until it returns nil, and prints that it waits for what. It
// returns the time that this took. After limit it returns the last error of try.
func (d *demo) until(ctx context.Context, limit, interval time.Duration, what string, try func() error) (time.Duration,
	error) {
	start := time.Now()
	printed := start
	for {
		err := try()
		took := time.Since(start)
		switch {
		case err == nil:
			return took, nil
		case ctx.Err() != nil:
			return took, ctx.Err()
		case took > limit:
			return took, fmt.Errorf("%s took longer than %s: %w", what, limit, err)
		case time.Since(printed) >= 5*time.Second:
			printed = time.Now()
			fmt.Fprintf(d.out, "  ... waiting for %s (%s)\n", what, took.Round(time.Second))
		}
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}
