package workload

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An update is checked for the images that it adds or changes, and for no others.
func TestThreatChangedImages(t *testing.T) {
	app := Image{Path: "/0", List: "containers", Name: "app", Image: "app:v1"}
	proxy := Image{Path: "/1", List: "containers", Name: "proxy", Image: "proxy:v1"}
	with := func(i Image, change func(*Image)) Image {
		change(&i)
		return i
	}
	cases := map[string]struct{ old, updated, want []Image }{
		"nothing changed": {[]Image{app, proxy}, []Image{app, proxy}, nil},
		"reordered": {
			[]Image{app, proxy},
			[]Image{with(proxy, func(i *Image) { i.Path = "/0" }), with(app, func(i *Image) { i.Path = "/1" })},
			nil,
		},
		"removed": {[]Image{app, proxy}, []Image{app}, nil},
		"added":   {[]Image{app}, []Image{app, proxy}, []Image{proxy}},
		"created": {nil, []Image{app, proxy}, []Image{app, proxy}},
		"another tag": {
			[]Image{app, proxy},
			[]Image{with(app, func(i *Image) { i.Image = "app:v2" }), proxy},
			[]Image{with(app, func(i *Image) { i.Image = "app:v2" })},
		},
		"moved to another container": {
			[]Image{app, proxy},
			[]Image{app, with(proxy, func(i *Image) { i.Image = "app:v1" })},
			[]Image{with(proxy, func(i *Image) { i.Image = "app:v1" })},
		},
		"swapped": {
			[]Image{app, proxy},
			[]Image{
				with(app, func(i *Image) { i.Image = "proxy:v1" }), with(proxy, func(i *Image) { i.Image = "app:v1" }),
			},
			[]Image{
				with(app, func(i *Image) { i.Image = "proxy:v1" }), with(proxy, func(i *Image) { i.Image = "app:v1" }),
			},
		},
		"moved to another list": {
			[]Image{app},
			[]Image{with(app, func(i *Image) { i.List = "ephemeralContainers" })},
			[]Image{with(app, func(i *Image) { i.List = "ephemeralContainers" })},
		},
		"renamed": {
			[]Image{app},
			[]Image{with(app, func(i *Image) { i.Name = "main" })},
			[]Image{with(app, func(i *Image) { i.Name = "main" })},
		},
		"pin taken off": {
			[]Image{with(app, func(i *Image) { i.Image = "app:v1@sha256:0" })},
			[]Image{app},
			[]Image{app},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Changed(c.old, c.updated)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReplaced(t *testing.T) {
	old := []Image{
		{"/0", "containers", "app", "app:v1"}, {"/1", "containers", "proxy", "proxy:v1"},
		{"/2", "initContainers", "set-up", "app:v0"},
	}
	changed := []Image{
		{"/a", "containers", "app", "app:v2"}, {"/b", "containers", "set-up", "app:v2"},
		{"/c", "volumes", "proxy", "x"},
	}
	if diff := cmp.Diff(map[string]string{"/a": "app:v1"}, Replaced(old, changed)); diff != "" {
		t.Error(diff)
	}
	if got := Replaced(old, nil); got != nil {
		t.Errorf("without changed images: got %v, want nil", got)
	}
}

func TestPin(t *testing.T) {
	op := Image{Path: "/spec/containers/0/image", Image: "app:v1"}.Pin("app:v1@sha256:0")
	raw, err := op.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"op":"replace","path":"/spec/containers/0/image","value":"app:v1@sha256:0"}`; string(raw) != want {
		t.Errorf("got %s, want %s", raw, want)
	}
}
