package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// command is one thing that users do with kubectl.
type command struct {
	name string
	// brings says that the image comes in by it.
	brings bool
	// args are those of kubectl for the image in question; name is one that is not taken.
	args func(image, name string) []string
	// stdin is an object to hand in, where there is one.
	stdin func(image, name string) any
}

// testKubectl does with the real kubectl what users do with it, with images that are signed, half
// signed and not signed. A Pod and a Deployment with a signed image are there, and a Deployment
// with the image in question from before any policy.
func (c *cover) testKubectl(t *testing.T) {
	deployment := subjects(t)[1]
	if deployment.name != "Deployment" {
		t.Fatalf("the second kind is %s", deployment.name)
	}
	running := pod(production, c.image(signed))
	running.GenerateName, running.Name = "", "running"
	c.admitted(t, running)
	c.admitted(t, deployment.object(t, production, "deployed", c.image(signed)))
	// Break-glass aside, this is the one way to have such objects: they were there first.
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
		t.Errorf("%d ephemeral containers run, want the signed one, pinned: %+v", n, live.Spec.EphemeralContainers)
	}
}

// commands are those that users have.
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

// deployedWith is the Deployment that has had an image since before any policy.
func deployedWith(image string) string {
	return "deployment/deployed-" + image[strings.LastIndex(image, ":")+1:]
}

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
	t.Errorf("kubectl %s with the image that is %s: %v\n%s", c.name, state, err, out)
	return outcome + " NOT AS EXPECTED"
}
