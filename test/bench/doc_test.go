// Package bench measures the figures that the project promises: how fast it decides and answers,
// what first sight of a repository costs, and what a thousand repositories take in time, memory and
// requests. Every benchmark checks that what it measures was done right, and reports; none fails
// because a machine is slow. The bounds are in hack/bench, which prints the table.
package bench

import (
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

const (
	// many and few are how many repositories, and policies, there are.
	many, few = 1000, 10
	// tags are in each repository, signed by each of three delegations.
	tags = 100
	host = "registry.example.com"
)

// roles are the delegations of every repository.
func roles() []string { return []string{"ci", "qa", "security"} }

// repositoryName is that of repository i, as it is signed and as images have it.
func repositoryName(i int) string { return fmt.Sprintf("%s/team-%d/app", host, i) }

func tag(i int) string { return fmt.Sprintf("v1.2.%d", i) }

// TestMain runs the benchmarks, or is the process that sends requests for one of them.
func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	debug.SetGCPercent(50) // as the manager does
	if os.Getenv(loadVariable) != "" {
		if err := generateLoad(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// say prints what a benchmark is at that takes more than a few seconds.
func say(begin time.Time, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0fs %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
