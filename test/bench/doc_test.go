// Package bench measures the figures that the project promises: the time of a decision and of a
// webhook response, the cost of the first fetch of a repository, and the time, memory and requests
// for 1,000 repositories. Every benchmark checks its results, for example that a Pod was admitted.
// No benchmark fails because a machine is slow. The bounds are in hack/bench, which prints the
// table.
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
	// many and few are the two numbers of repositories and policies.
	many, few = 1000, 10
	// tags is the number of tags of each repository. Each of three delegations signs all of them.
	tags = 100
	host = "registry.example.com"
)

// roles returns the delegations of every repository.
func roles() []string { return []string{"ci", "qa", "security"} }

// repositoryName returns the name of repository i, both in its signatures and in images.
func repositoryName(i int) string { return fmt.Sprintf("%s/team-%d/app", host, i) }

func tag(i int) string { return fmt.Sprintf("v1.2.%d", i) }

// TestMain runs the benchmarks. With loadVariable set, it is the load generator of one of them.
func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	debug.SetGCPercent(50) // as in the manager
	if os.Getenv(loadVariable) != "" {
		if err := generateLoad(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// progress prints the current step of a benchmark that takes more than a few seconds.
func progress(begin time.Time, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0fs %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
