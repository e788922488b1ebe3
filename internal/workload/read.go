package workload

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"sigs.k8s.io/json"
)

// maxImages bounds the images of one object. The size limit of the API server keeps real objects
// below it; it is here so that one request cannot have thousands of repositories looked up.
const maxImages = 4096

// Object is what is read of a workload.
type Object struct {
	// Images are all images in the order of the walk: init, regular and ephemeral containers, then
	// image volumes.
	Images []Image
	// Name is the name, or what a name will be generated from. It is for logs alone.
	Name string
	// UID is what the API server tells this object by from others of its name. It is for events
	// alone.
	UID string
	// Controlled says that the object names a controller as its owner. Anybody can write that, so
	// it excuses nothing.
	Controlled bool
}

// The parts of an object that are read. Keys are matched as the API server matches them, upper and
// lower case apart, and everything not listed here is skipped.
type (
	metadata struct {
		Name            string  `json:"name"`
		GenerateName    string  `json:"generateName"`
		UID             string  `json:"uid"`
		OwnerReferences []owner `json:"ownerReferences"`
	}
	owner struct {
		Controller *bool `json:"controller"`
	}
	podSpec struct {
		InitContainers      []*container `json:"initContainers"`
		Containers          []*container `json:"containers"`
		EphemeralContainers []*container `json:"ephemeralContainers"`
		Volumes             []*volume    `json:"volumes"`
	}
	container struct {
		Name  string `json:"name"`
		Image string `json:"image"`
	}
	volume struct {
		Name  string       `json:"name"`
		Image *imageVolume `json:"image"`
	}
	imageVolume struct {
		Reference string `json:"reference"`
	}
)

// MissingError says that an object has nothing where the PodSpec is to be, or on the way to it. It
// then names no image.
type MissingError struct {
	// Path is the first field on the way that is absent or null, as "spec.template".
	Path string
	// Kind is the name of the kind.
	Kind string
}

// Error implements error.
func (e *MissingError) Error() string { return e.Path + ": missing, a " + e.Kind + " needs it" }

// documentType returns struct{Metadata metadata "metadata"; Next *struct{... Next *podSpec ...}}
// with the path to the PodSpec as the keys, so that one pass over the JSON reads what is needed
// whatever the depth.
func documentType(path []string) reflect.Type {
	t := reflect.TypeFor[podSpec]()
	for i := len(path) - 1; i >= 0; i-- {
		fields := []reflect.StructField{
			{Name: "Next", Type: reflect.PointerTo(t), Tag: reflect.StructTag(`json:"` + path[i] + `"`)},
		}
		if i == 0 {
			fields = append(fields, reflect.StructField{
				Name: "Metadata", Type: reflect.TypeFor[metadata](), Tag: `json:"metadata"`,
			})
		}
		t = reflect.StructOf(fields)
	}
	return t
}

// Read returns the images of an object from its JSON. The error names the field: a wrong type or a
// repeated key on the way to an image, an entry that is null, no containers at all, or more than
// maxImages images. An object in which nothing is found is an error too: the walk has then looked
// in the wrong place. Where that is because the object has no PodSpec, it is a *MissingError.
func (k Kind) Read(raw []byte) (Object, error) {
	if k.document == nil {
		return Object{}, fmt.Errorf("the kind %q is unknown", k.Name)
	}
	kept, err := k.parts.prune(raw)
	if err != nil {
		return Object{}, fmt.Errorf("reading the %s: %w", k.Name, err)
	}
	document := reflect.New(k.document)
	odd, err := json.UnmarshalStrict(kept, document.Interface(), json.DisallowDuplicateFields)
	if err != nil {
		return Object{}, fmt.Errorf("reading the %s: %w", k.Name, err)
	}
	if len(odd) > 0 {
		return Object{}, fmt.Errorf("reading the %s: %w", k.Name, odd[0])
	}
	spec, meta, err := k.find(document.Elem())
	if err != nil {
		return Object{}, err
	}
	o := Object{Name: meta.Name, UID: meta.UID}
	if o.Name == "" {
		o.Name = meta.GenerateName
	}
	for _, r := range meta.OwnerReferences {
		o.Controlled = o.Controlled || r.Controller != nil && *r.Controller
	}
	o.Images, err = k.walk(spec, &marks{raw: raw})
	return o, err
}

// find follows the path to the PodSpec in a decoded document.
func (k Kind) find(document reflect.Value) (*podSpec, metadata, error) {
	v := document
	for i := range k.podSpec {
		next := v.FieldByName("Next")
		if next.IsNil() {
			return nil, metadata{}, &MissingError{Path: strings.Join(k.podSpec[:i+1], "."), Kind: k.Name}
		}
		v = next.Elem()
	}
	spec, isSpec := v.Addr().Interface().(*podSpec)
	meta, isMeta := document.FieldByName("Metadata").Interface().(metadata)
	if !isSpec || !isMeta {
		return nil, metadata{}, fmt.Errorf("the kind %q is not well made", k.Name)
	}
	return spec, meta, nil
}

// walk collects the images of a PodSpec, but for placeholders.
func (k Kind) walk(spec *podSpec, m *marks) ([]Image, error) {
	field, path := strings.Join(k.podSpec, "."), "/"+strings.Join(k.podSpec, "/")
	if len(spec.Containers) == 0 {
		return nil, fmt.Errorf("%s.containers: empty, a %s needs at least one", field, k.Name)
	}
	n := len(spec.InitContainers) + len(spec.Containers) + len(spec.EphemeralContainers)
	for _, v := range spec.Volumes {
		if v != nil && v.Image != nil {
			n++
		}
	}
	if n > maxImages {
		return nil, fmt.Errorf("%s: %d images, at most %d can be checked in one object", field, n, maxImages)
	}
	images := make([]Image, 0, n)
	for _, l := range []struct {
		list       string
		containers []*container
	}{
		{"initContainers", spec.InitContainers}, {"containers", spec.Containers},
		{"ephemeralContainers", spec.EphemeralContainers},
	} {
		for i, c := range l.containers {
			index := strconv.Itoa(i)
			at := field + "." + l.list + "[" + index + "]"
			if c == nil {
				return nil, fmt.Errorf("%s: null, expected a container", at)
			}
			if k.standsIn(c.Image, m) {
				continue
			}
			images = append(images, Image{
				Path: path + "/" + l.list + "/" + index + "/image",
				List: l.list, Name: c.Name, Image: c.Image,
			})
		}
	}
	for i, v := range spec.Volumes {
		index := strconv.Itoa(i)
		at := field + ".volumes[" + index + "]"
		switch {
		case v == nil:
			return nil, fmt.Errorf("%s: null, expected a volume", at)
		case v.Image == nil:
		case v.Image.Reference == "" && !k.IsPod():
			// A template may leave the reference to whoever fills it in; the Pods made of it are
			// checked.
		default:
			images = append(images, Image{
				Path: path + "/volumes/" + index + "/image/reference",
				List: "volumes", Name: v.Name, Image: v.Image.Reference,
			})
		}
	}
	return images, nil
}
