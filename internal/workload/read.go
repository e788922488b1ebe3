package workload

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"sigs.k8s.io/json"
)

// maxImages is the maximum number of images of one object. The API server's size limit keeps real
// objects below it. It prevents one request from causing thousands of fetches.
const maxImages = 4096

// Object is the part of a workload that the package reads.
type Object struct {
	// Images are all images in the order of the walk: init, regular and ephemeral containers, then
	// image volumes.
	Images []Image
	// Name is the name or else the generateName. It is only for logs.
	Name string
	// UID is the UID of the object. It is only for events.
	UID string
	// Controlled says that the object names a controller as its owner. Any client can write that,
	// so it exempts nothing from a check.
	Controlled bool
}

// The parts of an object that are decoded. Keys are case-sensitive, as for the API server. All
// other members are skipped.
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

// MissingError says that an object has no PodSpec, and so no image: a field on the path to it is
// absent or null.
type MissingError struct {
	// Path is the first field that is absent or null, such as "spec.template".
	Path string
	// Kind is the name of the kind.
	Kind string
}

// Error implements error.
func (e *MissingError) Error() string { return e.Path + ": missing, a " + e.Kind + " needs it" }

// documentType returns struct{Metadata metadata "metadata"; Next *struct{... Next *podSpec ...}}
// with the path to the PodSpec as the keys. So one pass over the JSON decodes all that is needed,
// at any depth.
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

// Read parses the JSON of an object and returns its images. It returns an error that names the
// field for a wrong type or a repeated key on the path to an image, an entry that is null, an
// object without containers, or more than maxImages images. An object without a PodSpec is a
// *MissingError and never an object without images, since its template may be at another path.
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

// walk collects the images of a PodSpec, except placeholders.
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
			if k.isPlaceholder(c.Image, m) {
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
			// A template may have an empty reference that is set later. The Pods created from it
			// are checked.
		default:
			images = append(images, Image{
				Path: path + "/volumes/" + index + "/image/reference",
				List: "volumes", Name: v.Name, Image: v.Image.Reference,
			})
		}
	}
	return images, nil
}
