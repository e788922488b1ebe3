//go:build node && linux

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const containerdSocket = "/run/containerd/containerd.sock"

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", name, err)
	}
	return path, nil
}

// configureContainerd writes containerd's configuration, and the configuration of the Pods'
// network.
func (c *cluster) configureContainerd(pause string) error {
	// Every containerd from 1.6 on reads version 2. The native snapshotter works on every file
	// system.
	config := fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
[grpc]
address = %q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q
`, c.path("containerd"), containerdSocket, pause, c.CNI, c.path("cni"))
	network := map[string]any{"cniVersion": "0.4.0", "name": "countersign", "plugins": []any{map[string]any{
		"type": "bridge", "bridge": bridge, "isGateway": true, "hairpinMode": true,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": c.path("addresses"),
			"ranges": []any{[]any{map[string]any{"subnet": podRange, "gateway": nodeIP}}},
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
		},
	}}}
	return errors.Join(
		os.WriteFile(c.path("containerd.toml"), []byte(config), 0o644),
		os.MkdirAll(c.path("cni"), 0o755),
		writeJSON(c.path("cni/10-countersign.conflist"), network),
	)
}

func (c *cluster) configureKubelet() error {
	if err := os.WriteFile(c.path("resolv.conf"), nil, 0o644); err != nil { // there is no DNS
		return err
	}
	return writeJSON(c.path("kubelet.json"), map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs", "cgroupRoot": "/" + c.Cgroup, "failCgroupV1": false,
		"failSwapOn": false,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": c.path("ca.crt")},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"clusterDomain": "cluster.local", "resolvConf": c.path("resolv.conf"),
		// A nearly full disk of this machine must not evict Pods.
		"evictionHard": map[string]any{
			"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi",
		},
		"imageGCHighThresholdPercent": 100, "registryPullQPS": 0, "eventRecordQPS": 0, "serializeImagePulls": false,
	})
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return os.WriteFile(path, text, 0o600)
}

// kubectl runs kubectl as an administrator, and returns its output and error output together. It
// returns an error if the exit status is not 0.
func (c *cluster) kubectl(args ...string) (string, error) {
	cmd := exec.Command(c.Kube.Kubectl, append([]string{"--kubeconfig", c.path("admin.kubeconfig")}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// stop ends the parts in reverse start order. The Pods' processes end with the process namespace.
func (c *cluster) stop() {
	for _, p := range slices.Backward(c.parts) {
		_ = p.process.Stop()
	}
}
