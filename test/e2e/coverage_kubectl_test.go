package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// command is a kubectl command that users run.
type command struct {
	name string
	// brings says that the command brings in the image.
	brings bool
	// args returns the arguments of kubectl. name is a new name.
	args func(image, name string) []string
	// stdin returns the object that kubectl reads. Nil: kubectl reads none.
	stdin func(image, name string) any
}

// testKubectl runs the real kubectl with each state of signing. There are a Pod and a Deployment
// with a signed image. For each state there is also a Deployment that is older than the policy.
func (c *cover) testKubectl(t *testing.T) {
	deployment := subjects(t)[1]
	if deployment.name != "Deployment" {
		t.Fatalf("got %s as the second kind, want Deployment", deployment.name)
	}
	running := pod(production, c.image(signed))
	running.GenerateName, running.Name = "", "running"
	c.admitted(t, running)
	c.admitted(t, deployment.object(t, production, "deployed", c.image(signed)))
	// Apart from break-glass, such objects exist only if they are older than the policy.
	c.uncovered(t, func() {
		for _, state := range states() {
			c.create(t, deployment.object(t, legacy, "deployed-"+state, c.image(state)))
		}
	})
	var table []string
	for _, command := range commands(t, deployment) {
		for _, state := range states() {
			name, stdin := c.name(), ""
			if command.stdin != nil {
				raw, err := json.Marshal(command.stdin(c.image(state), name))
				must(t, err)
				stdin = string(raw)
			}
			out, err := c.kube.RunKubectl(t.Context(), stdin, command.args(c.image(state), name)...)
			table = append(table,
				fmt.Sprintf("kubectl %-30s %-9s %s", command.name, state, judgeCommand(t, command, state, out, err)))
		}
	}
	slices.Sort(table)
	t.Logf("%d commands\n%s", len(table), strings.Join(table, "\n"))
	live := running.DeepCopy()
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(live), live))
	if n := len(live.Spec.EphemeralContainers); n != 1 || !strings.Contains(live.Spec.EphemeralContainers[0].Image,
		":"+signed+"@sha256:") {
		t.Errorf("got %d ephemeral containers %+v, want only the signed one, pinned", n, live.Spec.EphemeralContainers)
	}
}

// commands returns the commands that users run.
func commands(t *testing.T, deployment subject) []command {
	t.Helper()
	manifest := func(image, name string) any { return deployment.object(t, production, name, image).Object }
	in := func(namespace string, args ...string) []string {
		return append([]string{"--namespace", namespace}, args...)
	}
	return []command{
		{"run", true, func(image, name string) []string { return in(production, "run", name, "--image="+image) }, nil},
		{"create deployment", true, func(image, name string) []string {
			return in(production, "create", "deployment", name, "--image="+image, "--replicas=0")
		}, nil},
		{"apply", true, func(string, string) []string { return in(production, "apply", "-f", "-") }, manifest},
		{
			"apply --dry-run=server", true,
			func(string, string) []string { return in(production, "apply", "--dry-run=server", "-f", "-") }, manifest,
		},
		{
			"apply --server-side", true,
			func(string, string) []string { return in(production, "apply", "--server-side", "-f", "-") }, manifest,
		},
		{"set image", true, func(image, _ string) []string {
			return in(production, "set", "image", "deployment/deployed", "app="+image)
		}, nil},
		{"debug, ephemeral container", true, func(image, name string) []string {
			return in(production, "debug", "running", "--image="+image, "--container="+name, "--attach=false")
		}, nil},
		{"debug --copy-to", true, func(image, name string) []string {
			return in(production, "debug", "running", "--image="+image, "--container=debug", "--copy-to="+name,
				"--attach=false")
		}, nil},
		{"debug --copy-to --set-image", true, func(image, name string) []string {
			return in(production, "debug", "running", "--set-image=app="+image, "--copy-to="+name, "--attach=false")
		}, nil},
		{
			"scale", false,
			func(image, _ string) []string { return in(legacy, "scale", deployedWith(image), "--replicas=1") }, nil,
		},
		{
			"rollout restart", false,
			func(image, _ string) []string { return in(legacy, "rollout", "restart", deployedWith(image)) }, nil,
		},
		{
			"rollout pause", false,
			func(image, _ string) []string { return in(legacy, "rollout", "pause", deployedWith(image)) }, nil,
		},
		{
			"label", false,
			func(image, _ string) []string { return in(legacy, "label", deployedWith(image), "tier=web") }, nil,
		},
		{"annotate", false, func(image, _ string) []string {
			return in(legacy, "annotate", deployedWith(image), "example.com/note=x")
		}, nil},
		{"delete", false, func(image, _ string) []string { return in(legacy, "delete", deployedWith(image)) }, nil},
	}
}

// deployedWith returns the Deployment with an image that is older than the policy.
func deployedWith(image string) string {
	return "deployment/deployed-" + image[strings.LastIndex(image, ":")+1:]
}

// judgeCommand compares the result of a command with the expected one, and returns a text for the
// table.
func judgeCommand(t *testing.T, c command, state, out string, err error) string {
	t.Helper()
	outcome, good := "admitted", !c.brings || state == signed
	if err != nil {
		outcome = "denied"
		good = !good && strings.Contains(out, "denied the request") && strings.Contains(out, missing(state))
	}
	if good {
		return outcome + " as expected"
	}
	t.Errorf("kubectl %s with image tag %s: got %v and output\n%s", c.name, state, err, out)
	return outcome + " NOT AS EXPECTED"
}
