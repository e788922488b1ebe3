//go:build node && linux

package node

import (
	"strings"
	"testing"
)

// TestNode goes through the life of an installation. Each case relies on those before it, so that the first that fails is the last.
func TestNode(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name, what string
		run        func(*testing.T)
	}{
		{"Install", "Installing the operator into an empty cluster", b.install},
		{"Metrics", "Metrics: credentials are demanded", b.metrics},
		{"Gate", "The gate, with Pods that run: unsigned, signed by ci, signed by both, moved", b.gate},
		{"OwnImage", "The operator's own image, signed by ci and qa", b.ownImage},
		{"Network", "How the API server and the operator reach each other, and with what rights", b.network},
		{"Upgrade", "Upgrading the operator under load", b.upgrade},
		{"Certificate", "Replacing the serving certificate under load", b.certificate},
		{"PowerCut", "A power cut, and the start of everything while the Notary server is down", b.powerCut},
		{"Uninstall", "Uninstalling the operator", b.uninstall},
		{"UninstallDead", "Uninstalling it again, when no replica lives", b.uninstallDead},
	} {
		b.say("%s", c.what)
		if !t.Run(c.name, c.run) {
			b.explain(t)
			return
		}
	}
	b.say("Every case went as expected")
}

// explain shows what there is to see after a failure.
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
