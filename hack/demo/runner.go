package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A step shows one thing: why is what the reader is told before, run does it and checks the
// answers.
type step struct {
	title, why string
	run        func(ctx context.Context, d *demo) error
}

// A demo runs steps in an environment, and prints what it does.
type demo struct {
	*environment
}

func (d *demo) run(ctx context.Context, number int, s step) error {
	fmt.Fprintf(d.out, "\n\n== %d. %s\n\n%s\n", number, s.title, s.why)
	return s.run(ctx, d)
}

// say prints a sentence between commands.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "\n"+format+"\n", args...)
}

// An answer is what a command printed, and whether it failed.
type answer struct {
	command, output string
	failed          bool
}

// kubectl runs a command and prints it as a reader would type it, with what it answers.
func (d *demo) kubectl(ctx context.Context, args ...string) answer {
	return d.kubectlWith(ctx, "", args...)
}

// kubectlWith does so with a file on standard input, which is printed too.
func (d *demo) kubectlWith(ctx context.Context, stdin string, args ...string) answer {
	command := "kubectl " + strings.Join(quoted(args), " ")
	if stdin == "" {
		fmt.Fprintf(d.out, "\n$ %s\n", command)
	} else {
		fmt.Fprintf(d.out, "\n$ %s <<EOF\n%s\nEOF\n", command, strings.TrimSpace(stdin))
	}
	a := d.quiet(ctx, stdin, args...)
	fmt.Fprint(d.out, a.output)
	return a
}

// quiet runs a command and prints nothing.
func (d *demo) quiet(ctx context.Context, stdin string, args ...string) answer {
	output, err := d.kube.RunKubectl(ctx, stdin, args...)
	return answer{command: "kubectl " + strings.Join(args, " "), output: output, failed: err != nil}
}

// quoted puts what a shell would split or read otherwise between quotes.
func quoted(args []string) []string {
	all := slices.Clone(args)
	for i, a := range all {
		if strings.ContainsAny(a, " {}[]()*$\"'\\|&;<>?") {
			all[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return all
}

// sign runs the notary client, which prints its command line.
func (d *demo) sign(comment string, run func() error) error {
	fmt.Fprintf(d.out, "\n# %s\n", comment)
	d.signer.Verbose = func(command string) { fmt.Fprintf(d.out, "$ %s\n", command) }
	defer func() { d.signer.Verbose = nil }()
	return run()
}

// succeeds wants a command to have succeeded, and to have printed all of words.
func (a answer) succeeds(words ...string) error {
	if a.failed {
		return a.unexpected("success")
	}
	return a.says(words...)
}

// denied wants the webhook to have denied a request with a message that holds all of words.
func (a answer) denied(words ...string) error {
	if !a.failed || !strings.Contains(a.output, "denied the request") {
		return a.unexpected("a denial by the admission webhook")
	}
	return a.says(words...)
}

func (a answer) says(words ...string) error {
	for _, w := range words {
		if !strings.Contains(a.output, w) {
			return a.unexpected(fmt.Sprintf("an answer that contains %q", w))
		}
	}
	return nil
}

func (a answer) unexpected(want string) error {
	return fmt.Errorf("unexpected answer\n  command:  %s\n  expected: %s\n  got:      %s",
		a.command, want, strings.ReplaceAll(strings.TrimSpace(a.output), "\n", "\n            "))
}

// until asks again and again until ask returns nil, and prints that it is waiting. After the limit,
// what ask returned last is the error.
func (d *demo) until(ctx context.Context, limit, every time.Duration, what string, ask func() error) (time.Duration,
	error) {
	start := time.Now()
	said := start
	for {
		err := ask()
		took := time.Since(start)
		switch {
		case err == nil:
			return took, nil
		case ctx.Err() != nil:
			return took, ctx.Err()
		case took > limit:
			return took, fmt.Errorf("%s took longer than %s: %w", what, limit, err)
		case time.Since(said) >= 5*time.Second:
			said = time.Now()
			fmt.Fprintf(d.out, "  ... waiting for %s (%s)\n", what, took.Round(time.Second))
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}
