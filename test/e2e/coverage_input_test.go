package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// uncovered calls do while no policy covers the legacy namespace.
func (c *cover) uncovered(t *testing.T, do func()) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: legacy}}
	must(t,
		c.Patch(t.Context(), namespace,
			client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"env":null}}}`))))
	c.awaitAdmitted(t, "no policy to cover "+legacy, legacy, c.image(unsigned))
	do()
	c.coverLegacy(t)
}

// testLists adds the image to every list that can hold images, beside a signed one.
func (c *cover) testLists(t *testing.T) {
	lists := map[string]struct {
		name  string
		entry func(image string) map[string]any
		// only are the kinds that can be created with the list. Empty: all.
		only []string
	}{
		"regular": {"containers", func(image string) map[string]any { return container("second", image) }, nil},
		"init":    {"initContainers", func(image string) map[string]any { return container("init", image) }, nil},
		"sidecar": {"initContainers", func(image string) map[string]any {
			sidecar := container("sidecar", image)
			sidecar["restartPolicy"] = "Always"
			return sidecar
		}, nil},
		"image volume": {"volumes", imageVolume, nil},
		// The API server refuses ephemeral containers in templates of its own kinds, and in new
		// Pods. The table of operations tests the subresource that adds them to Pods.
		"ephemeral": {
			"ephemeralContainers", func(image string) map[string]any { return container("debug", image) },
			[]string{"Rollout", "DeploymentConfig"},
		},
	}
	var table []string
	for _, s := range subjects(t) {
		for name, list := range lists {
			if list.only != nil && !slices.Contains(list.only, s.name) {
				continue
			}
			for _, state := range states() {
				made := &cell{cover: c, t: t, subject: s, operation: operation{name: name, brings: true}, state: state}
				made.object = s.object(t, production, c.name(), c.image(signed))
				s.add(t, made.object, list.name, list.entry(c.image(state)))
				table = append(table, made.judge(c.Create(t.Context(), made.object)))
			}
		}
	}
	slices.Sort(table)
	t.Logf("%d cells\n%s", len(table), strings.Join(table, "\n"))
}

// testBadInput creates objects with bad images that the API server accepts.
func (c *cover) testBadInput(t *testing.T) {
	hex := strings.Repeat("a", 64)
	all := subjects(t)
	// For Docker's clients a host in capitals is another name.
	capitals := strings.Replace(c.repository, "registry", "Registry", 1)
	_, err := c.signer.CreateRepository(t.Context(), capitals, "ci", "qa")
	must(t, err)
	c.sign(t, capitals, "capitals", 1, "ci", "qa")
	c.sign(t, capitals, ciOnly, 2, "ci")
	for name, bad := range map[string]struct{ image, want string }{
		"4 KiB":            {c.repository + "/" + strings.Repeat("x", 4<<10), "longer than 1024 bytes"},
		"Unicode host":     {"régistry.example.com/acme/app:v1", "cannot be read"},
		"look-alike host":  {strings.Replace(c.image(signed), "registry.e", "registry.е", 1), "cannot be read"},
		"upper-case path":  {strings.Replace(c.image(signed), "/acme/", "/Acme/", 1), "in lower case"},
		"upper-case host":  {capitals + ":" + ciOnly, `role "qa" has not signed`},
		"of another case":  {capitals + ":" + signed, `role "ci" has not signed`},
		"sha512":           {c.repository + "@sha512:" + hex + hex, "use the sha256 digest"},
		"sha256 too short": {c.repository + "@sha256:" + hex[1:], "64 lower-case hexadecimal digits"},
		"sha256 too long":  {c.repository + "@sha256:" + hex + "a", "64 lower-case hexadecimal digits"},
		"an image ID":      {"sha256:" + hex, "this is an image ID"},
	} {
		for _, s := range all {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				c.denied(t, s.object(t, production, c.name(), bad.image), http.StatusForbidden, bad.want)
			})
		}
	}
	for _, s := range all {
		t.Run("upper-case host, signed/"+s.name, func(t *testing.T) {
			c.admitted(t, s.object(t, production, c.name(), capitals+":capitals"))
		})
	}
	c.testBadTemplates(t, all[len(all)-1])
}

// testBadTemplates creates Rollouts with bad templates. The API server does not validate them.
func (c *cover) testBadTemplates(t *testing.T, rollout subject) {
	if rollout.name != "Rollout" {
		t.Fatalf("got %s as the last kind, want Rollout", rollout.name)
	}
	const flag = "where the manager's --workload-kinds has it"
	for name, bad := range map[string]struct {
		template any
		want     string
	}{
		"missing":   {nil, "spec.template: missing"},
		"a string":  {c.image(signed), "spec.template"},
		"a number":  {int64(7), "spec.template"},
		"a boolean": {true, "spec.template"},
		"a list": {
			[]any{nested([]any{container("app", c.image(signed))}, "spec", "containers")}, "spec.template",
		},
		"empty":            {map[string]any{}, "spec.template.spec: missing"},
		"spec null":        {map[string]any{"spec": nil}, "spec.template.spec: missing"},
		"spec a string":    {map[string]any{"spec": "x"}, "spec.template.spec"},
		"containers null":  {nested(nil, "spec", "containers"), "spec.template.spec.containers: empty"},
		"containers empty": {nested([]any{}, "spec", "containers"), "spec.template.spec.containers: empty"},
		"containers an object": {
			nested(container("app", c.image(signed)), "spec", "containers"), "spec.template.spec.containers",
		},
		"container null": {nested([]any{nil}, "spec", "containers"), "spec.template.spec.containers[0]: null"},
		"image a number": {
			nested([]any{map[string]any{"image": int64(7)}}, "spec", "containers"),
			"spec.template.spec.containers.image",
		},
	} {
		t.Run("template "+name, func(t *testing.T) {
			o := rollout.object(t, production, c.name(), c.image(signed))
			spec, ok := o.Object["spec"].(map[string]any)
			if !ok {
				t.Fatalf("got spec %v, want an object", o.Object["spec"])
			}
			spec["template"] = bad.template
			c.denied(t, o, http.StatusBadRequest, bad.want, flag)
			delete(spec, "template")
			if bad.template == nil {
				c.denied(t, o, http.StatusBadRequest, bad.want, flag)
			}
		})
	}
	t.Run("image empty", func(t *testing.T) {
		c.denied(t, rollout.object(t, production, c.name(), ""), http.StatusForbidden, "the image reference is empty")
	})
	t.Run("updated to none", func(t *testing.T) {
		o := rollout.object(t, production, c.name(), c.image(signed))
		c.admitted(t, o)
		refused(t, c.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"template":null}}`))),
			http.StatusBadRequest, "spec.template: missing", flag)
	})
	must(t, c.manager.Ready(t.Context()))
}
