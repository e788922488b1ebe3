//go:build node && linux

package node

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/previous"
)

// TestNode tests an installation from its beginning to its end. Each case depends on those before
// it, so the test stops at the first failure.
func TestNode(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name, what string
		run        func(*testing.T)
	}{
		{"Install", "Installing release " + previous.Version + " of the operator into an empty cluster", b.install},
		{"Upgrade", "Upgrading it to this version under load", b.upgrade},
		{"Metrics", "Metrics: credentials are required", b.metrics},
		{"Gate", "The gate, with Pods that run: unsigned, signed by ci, signed by both, moved", b.gate},
		{"OwnImage", "The operator's own image, signed by ci and qa", b.ownImage},
		{"Network", "How the API server and the operator reach each other, and with what rights", b.network},
		{"Certificate", "Replacing the serving certificate under load", b.certificate},
		{"PowerCut", "A power cut, and the start of everything while the Notary server is down", b.powerCut},
		{"LostNodes", "The loss of all nodes, and a network that a Pod has to set up first", b.lostNodes},
		{"Uninstall", "Uninstalling the operator", b.uninstall},
		{
			"UninstallDead", "Installing it into the network of the node, and uninstalling it when no replica runs",
			b.uninstallDead,
		},
	} {
		b.say("%s", c.what)
		if !t.Run(c.name, c.run) {
			b.explain(t)
			return
		}
	}
	b.say("Every case passed")
}

// explain logs the state of the cluster after a failure.
func (b *bed) explain(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces", "--output=wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"get", "imagepolicies.countersign.dev,trustroots.countersign.dev", "--output=yaml"},
		{"describe", "deployment,pods", "--namespace=" + own},
		{"logs", "--namespace=" + own, "--selector=" + selector, "--tail=60", "--prefix"},
	} {
		out, err := b.kubectl(args...)
		t.Logf("kubectl %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
	t.Log(b.tail("kube-apiserver", "kubelet", "containerd", "kube-proxy"))
}
