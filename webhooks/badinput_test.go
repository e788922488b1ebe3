package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
)

// Invalid image references are denied in every kind, and the denial says what is wrong. The
// mutating handler does not change them.
func TestThreatBadImagesAreDenied(t *testing.T) {
	hex := strings.TrimPrefix(digestA, "sha256:")
	cases := map[string]struct{ image, want string }{
		"empty":              {"", "the image reference is empty"},
		"two blanks":         {"  ", "cannot be read"},
		"a blank at the end": {signed + " ", "cannot be read"},
		"a line break":       {signed + "\n", "cannot be read"},
		"a null byte":        {repository + "\x00:signed", "cannot be read"},
		"4 KiB":              {repository + "/" + strings.Repeat("x", 4<<10), "longer than 1024 bytes"},
		"4 KiB of path": {
			"registry.example.com" + strings.Repeat("/acme", 800) + ":signed", "longer than 1024 bytes",
		},
		"4 KiB of tag":                {repository + ":" + strings.Repeat("1", 4<<10), "longer than 1024 bytes"},
		"Unicode host":                {"régistry.example.com/acme/app:signed", "cannot be read"},
		"host with a look-alike":      {"registry.еxample.com/acme/app:signed", "cannot be read"},
		"host with a full-width stop": {"registry．example.com/acme/app:signed", "cannot be read"},
		"Unicode path":                {"registry.example.com/acmé/app:signed", "cannot be read"},
		"Unicode tag":                 {repository + ":sıgned", "cannot be read"},
		"no Unicode at all":           {repository + ":\xff", "cannot be read"},
		"upper-case path":             {"registry.example.com/Acme/app:signed", "in lower case"},
		"sha512": {
			repository + "@sha512:" + hex + hex, `"sha512" is not supported; use the sha256 digest`,
		},
		"sha512 with a tag": {
			signed + "@sha512:" + hex + hex, `"sha512" is not supported; use the sha256 digest`,
		},
		"sha256 one short": {
			repository + "@" + digestA[:len(digestA)-1], "64 lower-case hexadecimal digits",
		},
		"sha256 one long":   {repository + "@" + digestA + "a", "64 lower-case hexadecimal digits"},
		"sha256 of nothing": {repository + "@sha256:", "64 lower-case hexadecimal digits"},
		"sha256 in capitals": {
			repository + "@sha256:" + strings.ToUpper(hex), "64 lower-case hexadecimal digits",
		},
		"sha256 of what is no digit": {
			repository + "@sha256:" + strings.Repeat("g", 64), "64 lower-case hexadecimal digits",
		},
		"two digests": {
			repository + "@" + digestA + "@" + digestA, "64 lower-case hexadecimal digits",
		},
		"the ID of an image on a node": {digestA, "this is an image ID"},
		"a URL":                        {"https://registry.example.com/acme/app:signed", "cannot be read"},
	}
	b := newBench(t)
	for name, c := range cases {
		for _, k := range kinds(t) {
			t.Run(name+"/"+k.Name, func(t *testing.T) {
				r := request{kind: k.Name, object: object(k.Name, signed, c.image)}
				if got := b.send(t, MutatePath, r.review(t)); !got.Allowed ||
					strings.Contains(string(got.Patch), "containers/1") {
					t.Errorf("mutation: got %+v, want an admission without a patch of the image", got)
				}
				_, got := b.admit(t, r)
				wantDenied(t, got, 403, c.want)
				if n := len(got.Result.Message); n > maxMessage {
					t.Errorf("got a message of %d bytes, want at most %d", n, maxMessage)
				}
			})
		}
	}
}

// In a namespace where no policy holds, an invalid reference is admitted with a warning, in Pods
// and templates.
func TestUnreadableImageWhereNoPolicyHolds(t *testing.T) {
	const bad = "registry.example.com/acme/App:v1"
	production := requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{
			MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
		}
	})
	b := newBench(t, production)
	for _, k := range kinds(t) {
		stored, got := b.admit(t, request{kind: k.Name, namespace: "lab", object: object(k.Name, bad)})
		wantAdmitted(t, got)
		wantImage(t, stored, bad)
		if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], `image "`+bad+`": cannot be read: `) {
			t.Errorf("%s: got the warnings %q, want one about the image", k.Name, got.Warnings)
		}
		_, got = b.admit(t, request{kind: k.Name, namespace: "shop", object: object(k.Name, bad)})
		wantDenied(t, got, 403, `image "`+bad+`": cannot be read: `)
	}
}

// The host of a registry is case-insensitive. Capitals in it neither bypass the policy nor deny a
// signed image.
func TestThreatUpperCaseHostIsTheSameHost(t *testing.T) {
	b := newBench(t)
	for _, k := range kinds(t) {
		upper := func(image string) string {
			return strings.Replace(image, "registry.example.com", "Registry.EXAMPLE.com", 1)
		}
		_, got := b.admit(t, request{kind: k.Name, object: object(k.Name, upper(ciOnly))})
		wantDenied(t, got, 403, `role "qa" has not signed`)
		stored, got := b.admit(t, request{kind: k.Name, object: object(k.Name, upper(signed))})
		wantAdmitted(t, got)
		if k.IsPod() {
			wantImage(t, stored, upper(pinned))
		} else {
			wantImage(t, stored, upper(signed))
		}
	}
}

// Two spellings of one host are two names of signed repositories, even in one Pod. Each has its own
// signatures, and an image is pinned in its own spelling.
func TestThreatSpellingsAreDecidedApart(t *testing.T) {
	b := newBench(t)
	port := func(image string) string { return strings.Replace(image, "example.com/", "example.com:443/", 1) }
	b.root.mu.Lock()
	b.root.answer = func(_ context.Context, name string) (trust.Evidence, error) {
		if name == port(repository) {
			return usual(), nil
		}
		return &evidence{}, nil
	}
	b.root.mu.Unlock()
	for _, k := range kinds(t) {
		// neither of the two is loaded yet
		got := b.validate(t, request{kind: k.Name, object: object(k.Name, port(pinned), signed)})
		wantDenied(t, got, 403, `image "`+signed+`"`)
		if strings.Contains(got.Result.Message, port(signed)) {
			t.Errorf("%s: got a denial of the signed image, want one of the other alone:\n%s", k.Name,
				got.Result.Message)
		}
		_, got = b.admit(t, request{kind: k.Name, object: object(k.Name, port(ciOnly))})
		wantDenied(t, got, 403, `role "qa" has not signed`)
		stored, got := b.admit(t, request{kind: k.Name, object: object(k.Name, port(signed))})
		wantAdmitted(t, got)
		if k.IsPod() {
			wantImage(t, stored, port(pinned))
		}
	}
}

// If a template is missing or invalid, the denial names the field. For a further kind it also names
// the flag with the path of the template.
func TestThreatBadTemplatesAreDenied(t *testing.T) {
	good := `{"containers":[{"name":"a","image":"` + pinned + `"}]}`
	const flag = "looked for at spec.template, where the manager's --workload-kinds has it"
	cases := map[string]struct {
		spec string // the JSON of the object's spec; empty for an object without one
		want string
	}{
		"no spec":                {``, "spec: missing"},
		"spec null":              {`null`, "spec: missing"},
		"spec a string":          {`"spec"`, "spec"},
		"spec a list":            {`[{"template":{"spec":` + good + `}}]`, "spec"},
		"no template":            {`{"tmpl":{"spec":` + good + `}}`, "spec.template: missing"},
		"template in other case": {`{"Template":{"spec":` + good + `}}`, "spec.template: missing"},
		"template null":          {`{"template":null}`, "spec.template: missing"},
		"template a string":      {`{"template":"` + pinned + `"}`, "spec.template"},
		"template a number":      {`{"template":1e400}`, "spec.template"},
		"template a boolean":     {`{"template":false}`, "spec.template"},
		"template a list":        {`{"template":[{"spec":` + good + `}]}`, "spec.template"},
		"template twice": {
			`{"template":{"spec":` + good + `},"template":{"spec":` + good + `}}`, `duplicate field "spec.template"`,
		},
		"no Pod spec":       {`{"template":` + good + `}`, "spec.template.spec: missing"},
		"Pod spec null":     {`{"template":{"spec":null}}`, "spec.template.spec: missing"},
		"Pod spec a string": {`{"template":{"spec":"x"}}`, "spec.template.spec"},
		"Pod spec a list":   {`{"template":{"spec":[` + good + `]}}`, "spec.template.spec"},
		"no containers":     {`{"template":{"spec":{}}}`, "spec.template.spec.containers: empty"},
		"containers null":   {`{"template":{"spec":{"containers":null}}}`, "spec.template.spec.containers: empty"},
		"containers empty":  {`{"template":{"spec":{"containers":[]}}}`, "spec.template.spec.containers: empty"},
		"containers an object": {
			`{"template":{"spec":{"containers":{"image":"` + pinned + `"}}}}`, "spec.template.spec.containers",
		},
		"container null": {`{"template":{"spec":{"containers":[null]}}}`, "spec.template.spec.containers[0]: null"},
		"container a string": {
			`{"template":{"spec":{"containers":["` + pinned + `"]}}}`, "spec.template.spec.containers",
		},
		"image a number": {
			`{"template":{"spec":{"containers":[{"image":7}]}}}`, "spec.template.spec.containers.image",
		},
		"image a list": {
			`{"template":{"spec":{"containers":[{"image":["` + pinned + `"]}]}}}`,
			"spec.template.spec.containers.image",
		},
		"init containers": {
			`{"template":{"spec":{"initContainers":"x","containers":[{"image":"` + pinned + `"}]}}}`,
			"spec.template.spec.initContainers",
		},
		"volumes": {
			`{"template":{"spec":{"volumes":[null],"containers":[{"image":"` + pinned + `"}]}}}`,
			"spec.template.spec.volumes[0]: null",
		},
		"image volume": {
			`{"template":{"spec":{"volumes":[{"image":"x"}],"containers":[{"image":"` + pinned + `"}]}}}`,
			"spec.template.spec.volumes.image",
		},
	}
	b := newBench(t)
	for name, c := range cases {
		for _, kind := range []string{"Deployment", "DeploymentConfig", "rollouts.argoproj.io"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				raw := `{"metadata":{"name":"acme"}}`
				if c.spec != "" {
					raw = fmt.Sprintf(`{"metadata":{"name":"acme"},"spec":%s}`, c.spec)
				}
				for _, old := range []any{nil, object(kind, signed), raw} {
					_, got := b.admit(t, request{kind: kind, object: raw, old: old})
					if old == raw && strings.Contains(c.want, ": missing") {
						wantAdmitted(t, got) // no image is added: TestThreatOnlyWhatLackedItsTemplateIsPassed
						continue
					}
					wantDenied(t, got, 400, c.want)
					if named := strings.Contains(got.Result.Message, flag); named != strings.Contains(kind, ".") {
						t.Errorf("got the flag in the message: %t, want %t\n%s", named, !named, got.Result.Message)
					}
				}
			})
		}
	}
}

// A further kind is accepted in its configured version only.
func TestThreatAnotherVersionOfAFurtherKindIsDenied(t *testing.T) {
	b := newBench(t)
	review := request{kind: "rollouts.argoproj.io", object: object("rollouts.argoproj.io", signed)}.review(t)
	wantAdmitted(t, b.send(t, ValidatePath, review))
	review.Request.Resource.Version = "v1"
	wantDenied(t, b.send(t, ValidatePath, review), 400,
		`rollouts.argoproj.io in version "v1" is no kind of workload that can be checked`)
	review.Request.Resource.Version, b.Kinds = "v1alpha1", workload.Builtin()
	wantDenied(t, b.send(t, ValidatePath, review), 400,
		`rollouts.argoproj.io in version "v1alpha1" is no kind of workload that can be checked`)
}

// OpenShift's templates have a blank until a trigger sets the image. The blank is admitted in
// templates only, and the image that replaces it is checked.
func TestThreatPlaceholderIsFilledInUnderTheGate(t *testing.T) {
	b := newBench(t)
	for _, k := range kinds(t) {
		_, got := b.admit(t, request{kind: k.Name, object: object(k.Name, " ")})
		if k.IsPod() {
			wantDenied(t, got, 403, "cannot be read")
			continue
		}
		wantAdmitted(t, got)
		_, got = b.admit(t, request{kind: k.Name, object: object(k.Name, ciOnly), old: object(k.Name, " ")})
		wantDenied(t, got, 403, `role "qa" has not signed`)
		_, got = b.admit(t, request{kind: k.Name, object: object(k.Name, signed), old: object(k.Name, " ")})
		wantAdmitted(t, got)
	}
}

// The image "auto" is a placeholder in a template with Istio's mark, and nowhere else. The other
// images of the template are checked.
func TestThreatMarkedTemplateIsUnderTheGate(t *testing.T) {
	everything := requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Images = []v1alpha1.ImagePattern{"*/**"} })
	b := newBench(t, everything)
	mark := func(kind string, images ...string) any {
		raw := encode(t, object(kind, images...))
		if kind == "Pod" {
			return bytes.Replace(raw, []byte(`"metadata":{`),
				[]byte(
					`"metadata":{"labels":{"sidecar.istio.io/inject":"true"},"annotations":{"inject.istio.io/templates":"gateway"},`),
				1)
		}
		var o map[string]any
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		template := o
		for _, field := range map[string][]string{
			"PodTemplate": {"template"}, "CronJob": {"spec", "jobTemplate", "spec", "template"},
		}[kind] {
			template = template[field].(map[string]any)
		}
		if kind != "PodTemplate" && kind != "CronJob" {
			template = o["spec"].(map[string]any)["template"].(map[string]any)
		}
		template["metadata"] = map[string]any{"labels": map[string]any{"sidecar.istio.io/inject": "true"}}
		return o
	}
	for _, k := range kinds(t) {
		t.Run(k.Name, func(t *testing.T) {
			_, got := b.admit(t, request{kind: k.Name, object: object(k.Name, "auto")})
			wantDenied(t, got, 403, `image "auto"`)
			_, got = b.admit(t, request{kind: k.Name, object: mark(k.Name, "auto")})
			if k.IsPod() {
				wantDenied(t, got, 403, `image "auto"`)
				return
			}
			wantAdmitted(t, got)
			_, got = b.admit(t, request{kind: k.Name, object: mark(k.Name, "auto", ciOnly)})
			wantDenied(t, got, 403, `role "qa" has not signed`)
			_, got = b.admit(t, request{kind: k.Name, object: object(k.Name, "auto"), old: mark(k.Name, "auto")})
			wantDenied(t, got, 403, `image "auto"`)
			_, got = b.admit(t, request{kind: k.Name, object: mark(k.Name, ciOnly), old: mark(k.Name, "auto")})
			wantDenied(t, got, 403, `role "qa" has not signed`)
		})
	}
}

// An invalid reference is found in every list.
func TestThreatBadImagesInEveryList(t *testing.T) {
	const bad = "régistry.example.com/acme/app"
	b := newBench(t)
	for name, change := range map[string]func(*corev1.PodSpec){
		"init": func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "x", Image: bad}} },
		"ephemeral": func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{
				{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "x", Image: bad}},
			}
		},
		"volume": func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{
				{Name: "x", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: bad}}},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := object("Pod", pinned).(*corev1.Pod)
			change(&pod.Spec)
			_, got := b.admit(t, request{kind: "Pod", object: pod})
			wantDenied(t, got, 403, "cannot be read")
		})
	}
}

// An update of an object that has no pod template and had none is admitted, so that a finalizer can
// be removed. Every other object that cannot be parsed is denied.
func TestThreatOnlyWhatLackedItsTemplateIsPassed(t *testing.T) {
	const rollout, image = "rollouts.argoproj.io", `{"template":{"spec":{"containers":[{"name":"c","image":"` + ciOnly +
		`"}]}}}`
	with := func(spec, meta string) string { return `{"metadata":{"name":"acme"` + meta + `}` + spec + `}` }
	cases := map[string]struct {
		kind, old, is string // the kind, and the spec before and after the update
		code          int32  // 0 for an admission
	}{
		"no spec":                   {rollout, ``, ``, 0},
		"null spec":                 {rollout, `,"spec":null`, `,"spec":null`, 0},
		"no template":               {rollout, `,"spec":{}`, `,"spec":{"paused":true}`, 0},
		"template of nothing":       {rollout, `,"spec":{"template":{}}`, `,"spec":{"template":{"metadata":{}}}`, 0},
		"null and absent":           {rollout, `,"spec":null`, ``, 0},
		"lacked elsewhere":          {rollout, ``, `,"spec":{}`, 400},
		"lost":                      {rollout, `,"spec":` + image, `,"spec":{}`, 400},
		"lost, was odd":             {rollout, `,"spec":{"template":[]}`, `,"spec":{}`, 400},
		"wrong type before and now": {rollout, `,"spec":{"template":[]}`, `,"spec":{"template":[]}`, 400},
		"wrong type now":            {rollout, `,"spec":{}`, `,"spec":{"template":"x"}`, 400},
		"twice":                     {rollout, `,"spec":{}`, `,"spec":{},"spec":{}`, 400},
		"no containers": {
			rollout, `,"spec":{"template":{"spec":{}}}`,
			`,"spec":{"template":{"spec":{"initContainers":[{"image":"` + ciOnly + `"}]}}}`, 400,
		},
		"a template came": {rollout, `,"spec":{}`, `,"spec":` + image, 403},
		"a Pod":           {"Pod", ``, ``, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			old, is := with(c.old,
				`,"finalizers":["example.com/hold"],"deletionTimestamp":"2026-01-01T00:00:00Z"`), with(c.is,
				`,"deletionTimestamp":"2026-01-01T00:00:00Z"`)
			_, got := b.admit(t, request{kind: c.kind, object: is, old: old})
			if c.code == 0 {
				wantAdmitted(t, got)
				wantDenied(t, b.validate(t, request{kind: c.kind, object: is}), 400, "missing") // as a new object
				return
			}
			wantDenied(t, got, c.code)
		})
	}
	t.Run("nothing came before", func(t *testing.T) {
		review := request{kind: rollout, object: with(``, ``), old: with(``, ``)}.review(t)
		review.Request.OldObject.Raw = nil
		wantDenied(t, newBench(t).send(t, ValidatePath, review), 400, "missing")
	})
}
