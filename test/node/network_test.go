//go:build node && linux

package node

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// network checks the connections between the API server and the operator, and the rights of the
// operator's account.
func (b *bed) network(t *testing.T) {
	pods, err := b.replicas(t.Context())
	must(t, err)
	if len(pods) != 3 {
		t.Fatalf("got %d replicas, want 3", len(pods))
	}
	b.await(t, "every replica to reach the API server as "+kubernetesIP, func(context.Context) error {
		out, err := exec.Command("conntrack", "--dump", "--proto=tcp", "--orig-dst="+kubernetesIP).CombinedOutput()
		if err != nil {
			return fmt.Errorf("conntrack: %w\n%s", err, out)
		}
		for _, p := range pods {
			if !strings.Contains(string(out), fmt.Sprintf("src=%s dst=%s ", p.Status.PodIP, kubernetesIP)) {
				return fmt.Errorf("got\n%s\nwant a connection from %s (%s)", out, p.Name, p.Status.PodIP)
			}
		}
		return nil
	})
	for _, p := range pods {
		if p.Spec.ServiceAccountName != manager || p.Spec.HostNetwork {
			t.Errorf("%s: got account %s and host network %t, want account %s and its own network", p.Name,
				p.Spec.ServiceAccountName, p.Spec.HostNetwork, manager)
		}
		if n := p.Status.ContainerStatuses[0].RestartCount; n > 0 {
			t.Errorf("%s: got %d restarts, want none", p.Name, n)
		}
	}
	may := func(answer string, what ...string) {
		t.Helper()
		args := append([]string{"auth", "can-i", "--as=system:serviceaccount:" + own + ":" + manager}, what...)
		if out, _ := b.kubectl(args...); !strings.HasPrefix(lastLine(out), answer) {
			t.Errorf("kubectl %s: got %q, want %q", strings.Join(args, " "), out, answer)
		}
	}
	may("yes", "list", "imagepolicies.countersign.dev")
	may("yes", "get", "secrets", "--namespace="+own)
	may("no", "get", "secrets", "--namespace="+shop)
	may("no", "get", "secrets", "--namespace=kube-system")
	may("no", "create", "pods", "--namespace="+shop)
	may("no", "delete", "pods", "--namespace="+shop)
	may("no", "delete", "validatingwebhookconfigurations")
	may("no", "update", "clusterroles")
	b.nothingForbidden(t)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// nothingForbidden checks that no replica has logged a request that was denied for lack of a right.
func (b *bed) nothingForbidden(t *testing.T) {
	t.Helper()
	pods, err := b.replicas(t.Context())
	must(t, err)
	read := 0
	for _, p := range pods {
		log, err := b.clients.CoreV1().Pods(own).GetLogs(p.Name, &corev1.PodLogOptions{}).Stream(t.Context())
		must(t, err)
		text, err := io.ReadAll(log)
		log.Close()
		must(t, err)
		read += len(text)
		for line := range strings.Lines(string(text)) {
			if lower := strings.ToLower(line); strings.Contains(lower, "forbidden") ||
				strings.Contains(lower, "cannot list") {
				t.Errorf("%s: got log line %s, want no denied request", p.Name, line)
			}
		}
	}
	if len(pods) == 0 || read == 0 {
		t.Errorf("got %d bytes of logs from %d replicas, want some", read, len(pods))
	}
}
