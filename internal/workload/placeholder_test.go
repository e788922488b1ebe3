package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// marked returns an object of every kind with labels and annotations on its template, or on the Pod
// itself.
func marked(t *testing.T, labels, annotations map[string]string, containers ...corev1.Container) map[string][]byte {
	t.Helper()
	made := map[string][]byte{}
	for name, o := range objects(corev1.PodSpec{InitContainers: containers[:1], Containers: containers}) {
		text := string(marshal(t, o))
		meta := fmt.Sprintf(`"metadata":{"labels":%s,"annotations":%s}`, marshal(t, labels), marshal(t, annotations))
		if name == "Pod" {
			made[name] = []byte(strings.Replace(text, `"metadata":{`, meta[:len(meta)-1]+",", 1))
			continue
		}
		spec := strings.LastIndex(text, `"spec":{"initContainers"`)
		before := strings.TrimSuffix(text[:spec], `"metadata":{},`) // which the Go types write
		made[name] = []byte(before + meta + "," + text[spec:])
	}
	return made
}

// images returns the references of an object, with their lists.
func images(t *testing.T, k Kind, raw []byte) []string {
	t.Helper()
	o, err := k.Read(raw)
	if err != nil {
		t.Fatalf("%s: %v in %s", k.Name, err, raw)
	}
	var found []string
	for _, i := range o.Images {
		found = append(found, i.List+" "+i.Image)
	}
	return found
}

// A placeholder is admitted in a template with its mark, and nowhere else. The other containers of
// the template are checked.
func TestThreatPlaceholderNeedsItsMark(t *testing.T) {
	type of = map[string]string
	auto, app := corev1.Container{Name: "istio-proxy", Image: "auto"}, corev1.Container{
		Name: "app", Image: "example.com/app:v1",
	}
	kinds, err := Builtin().WithPlaceholders([]string{"injected=example.com/inject=yes"})
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		image               string
		labels, annotations of
		through             bool
	}{
		"templates, annotated": {"auto", nil, of{"inject.istio.io/templates": "gateway"}, true},
		"injection, labelled":  {"auto", of{"sidecar.istio.io/inject": "true"}, nil, true},
		"injection, annotated": {"auto", nil, of{"sidecar.istio.io/inject": "true"}, true},
		"a revision, labelled": {"auto", of{"istio.io/rev": "canary"}, nil, true},
		"as a gateway has it": {
			"auto", of{"istio": "ingressgateway", "sidecar.istio.io/inject": "true"},
			of{"inject.istio.io/templates": "gateway"}, true,
		},
		"given by the flag":         {"injected", of{"example.com/inject": "yes"}, nil, true},
		"no mark":                   {"auto", nil, nil, false},
		"another label":             {"auto", of{"istio": "ingressgateway"}, nil, false},
		"injection refused":         {"auto", of{"sidecar.istio.io/inject": "false"}, nil, false},
		"injection in other words":  {"auto", of{"sidecar.istio.io/inject": "True"}, nil, false},
		"a mark in capitals":        {"auto", of{"Sidecar.istio.io/inject": "true"}, nil, false},
		"the mark of another":       {"auto", of{"example.com/inject": "yes"}, nil, false},
		"another value by the flag": {"injected", of{"example.com/inject": "no"}, nil, false},
		"another, marked":           {"auto2", of{"sidecar.istio.io/inject": "true"}, nil, false},
		"in capitals, marked":       {"Auto", of{"sidecar.istio.io/inject": "true"}, nil, false},
		"with a tag, marked":        {"auto:latest", of{"sidecar.istio.io/inject": "true"}, nil, false},
		"in full, marked":           {"docker.io/library/auto", of{"sidecar.istio.io/inject": "true"}, nil, false},
		"nothing, marked":           {"", of{"sidecar.istio.io/inject": "true"}, nil, false},
		"an image, marked":          {"example.com/proxy:v1", of{"sidecar.istio.io/inject": "true"}, nil, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			auto.Image = c.image
			made := marked(t, c.labels, c.annotations, auto, app)
			for _, k := range kinds {
				want := []string{"initContainers " + c.image, "containers " + c.image, "containers " + app.Image}
				if c.through && !k.IsPod() {
					want = want[2:]
				}
				if got := images(t, k, made[k.Name]); !slices.Equal(got, want) {
					t.Errorf("%s: got %q, want %q in %s", k.Name, got, want, made[k.Name])
				}
			}
		})
	}
}

// A mark counts only if it is certain that it is on the template.
func TestThreatMarkElsewhereIsNone(t *testing.T) {
	const spec = `"spec":{"containers":[{"name":"a","image":"auto"}]}`
	const mark = `"sidecar.istio.io/inject":"true"`
	for name, c := range map[string]struct {
		raw  string
		want int
	}{
		"on the template": {`{"spec":{"template":{"metadata":{"labels":{` + mark + `}},` + spec + `}}}`, 0},
		"on the template, behind": {
			`{"spec":{"template":{` + spec + `,"metadata":{"annotations":{` + mark + `}}}}}`, 0,
		},
		"with an escape": {
			`{"spec":{"template":{"metadata":{"labels":{"sidecar.istio.io\/inject":"true"}},` + spec + `}}}`, 0,
		},
		"on the object": {`{"metadata":{"labels":{` + mark + `}},"spec":{"template":{` + spec + `}}}`, 1},
		"in the selector": {
			`{"spec":{"selector":{"matchLabels":{` + mark + `}},"template":{` + spec + `}}}`, 1,
		},
		"in the metadata itself": {`{"spec":{"template":{"metadata":{` + mark + `},` + spec + `}}}`, 1},
		"no text": {
			`{"spec":{"template":{"metadata":{"labels":{"sidecar.istio.io/inject":true}},` + spec + `}}}`, 1,
		},
		"a list": {
			`{"spec":{"template":{"metadata":{"labels":[{` + mark + `}]},` + spec + `}}}`, 1,
		},
		"metadata null":      {`{"spec":{"template":{"metadata":null,` + spec + `}}}`, 1},
		"labels in capitals": {`{"spec":{"template":{"metadata":{"Labels":{` + mark + `}},` + spec + `}}}`, 1},
		"twice": {
			`{"spec":{"template":{"metadata":{"labels":{` + mark + `,"sidecar.istio.io/inject":"false"}},` + spec +
				`}}}`, 1,
		},
		"labels twice": {
			`{"spec":{"template":{"metadata":{"labels":{` + mark + `},"labels":{}},` + spec + `}}}`, 1,
		},
		"metadata twice": {
			`{"spec":{"template":{"metadata":{"labels":{` + mark + `}},"metadata":{},` + spec + `}}}`, 1,
		},
		"on a Job's template": {
			`{"spec":{"template":{"spec":{"metadata":{"labels":{` + mark + `}},"containers":[{"image":"auto"}]}}}}`, 1,
		},
		"an image volume, not filled": {
			`{"spec":{"template":{"metadata":{"labels":{` + mark +
				`}},"spec":{"containers":[{"image":"auto"}],"volumes":[{"name":"v","image":{"reference":"auto"}}]}}}}`,
			1,
		},
	} {
		if got := images(t, kind(t, "Deployment"), []byte(c.raw)); len(got) != c.want {
			t.Errorf("%s: got the images %q, want %d", name, got, c.want)
		}
	}
}

// An update that removes the mark, or replaces the placeholder by an image, changes the image.
func TestThreatUpdateOfAMarkedTemplate(t *testing.T) {
	auto, mark := corev1.Container{Name: "istio-proxy", Image: "auto"}, map[string]string{
		"sidecar.istio.io/inject": "true",
	}
	for _, k := range Builtin()[1:] {
		read := func(labels map[string]string, image string) []Image {
			auto.Image = image
			o, err := k.Read(marked(t, labels, nil, auto)[k.Name])
			if err != nil {
				t.Fatal(err)
			}
			return o.Images
		}
		for name, got := range map[string][]Image{
			"the mark is gone": Changed(read(mark, "auto"), read(nil, "auto")),
			"an image instead": Changed(read(mark, "auto"), read(mark, "example.com/app:v1")),
		} {
			if len(got) != 2 { // one in each list
				t.Errorf("%s, %s: got the changed images %+v, want two", k.Name, name, got)
			}
		}
		if got := Changed(read(mark, "auto"), read(mark, "auto")); len(got) != 0 {
			t.Errorf("%s, unchanged: got the changed images %+v, want none", k.Name, got)
		}
	}
}

func TestParsePlaceholder(t *testing.T) {
	for in, want := range map[string]Placeholder{
		"auto=inject.istio.io/templates":    {"auto", "inject.istio.io/templates", ""},
		"auto=sidecar.istio.io/inject=true": {"auto", "sidecar.istio.io/inject", "true"},
		"filled:later=inject=a=b":           {"filled:later", "inject", "a=b"},
	} {
		if got, err := parsePlaceholder(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                                   "IMAGE=MARK",
		"auto":                               "IMAGE=MARK",
		"=inject":                            "the image has to be",
		"au to=inject":                       "without blanks",
		"äuto=inject":                        "ASCII",
		strings.Repeat("a", 129) + "=x":      "1 to 128",
		"example.com/app=inject":             "an image and no placeholder",
		"app@sha256=inject":                  "an image and no placeholder",
		"auto=":                              `"" is not the key`,
		"auto=a b":                           `"a b" is not the key`,
		"auto=a/b/c":                         "is not the key",
		"auto=inject=":                       "leave out the '='",
		"auto=inject=a b":                    "without blanks",
		"auto=x=" + strings.Repeat("a", 257): "1 to 256",
	} {
		if got, err := parsePlaceholder(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %+v, %v, want an error with %q", in, got, err, want)
		}
	}
	if _, err := Builtin().WithPlaceholders(slices.Repeat([]string{"auto=inject"}, 65)); err == nil ||
		!strings.Contains(err.Error(), "at most 64") {
		t.Errorf("65 placeholders: got %v, want an error with at most 64", err)
	}
}

// FuzzParsePlaceholder checks that every accepted placeholder has a mark and names no registry.
func FuzzParsePlaceholder(f *testing.F) {
	for _, s := range []string{"auto=a", "auto=a/b=c", " =a", "a==", "a=b=", "x/y=z", "=", "a=b=c=d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePlaceholder(s)
		if err != nil {
			return
		}
		if p.Image == "" || p.Mark == "" || strings.ContainsAny(p.Image, "/@ ") ||
			!strings.HasPrefix(s, p.Image+"="+p.Mark) {
			t.Fatalf("%q: got %+v, want an image without a registry and a mark, or an error", s, p)
		}
	})
}

// A repeated mark does not count: parsers differ in which of the two values they use.
func TestThreatMarkTwiceIsNone(t *testing.T) {
	kind, err := Builtin().Find("apps", "v1", "deployments", "")
	if err != nil {
		t.Fatal(err)
	}
	const raw = `{"spec":{"template":{"metadata":{"labels":{"sidecar.istio.io/inject":"false","sidecar.istio.io/inject":"true"}},"spec":{"containers":[{"name":"a","image":"auto"}]}}}}`
	if o, err := kind.Read([]byte(raw)); err == nil && len(o.Images) != 1 {
		t.Errorf("got the images %v, want the one to be checked", o.Images)
	}
}
