//go:build node && !linux

package node

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

func TestMain(*testing.M) {
	fmt.Fprintf(os.Stderr, "make test-node needs Linux, for a kubelet and containerd; this is %s.\n", runtime.GOOS)
	os.Exit(1)
}
