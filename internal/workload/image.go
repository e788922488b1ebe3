package workload

import "gomodules.xyz/jsonpatch/v2"

// Image is one field of an object that names an image.
type Image struct {
	// Path is the JSON pointer to the reference, such as /spec/template/spec/containers/0/image.
	Path string
	// List is the list with the container or volume: initContainers, containers,
	// ephemeralContainers or volumes.
	List string
	// Name is the name of the container or volume.
	Name string
	// Image is the reference as written, empty if there is none.
	Image string
}

// Changed returns the images that an update adds or changes. An image is unchanged if the old
// object has the same reference in an entry of the same list and name, at any index. Every other
// image has changed. So an image that moves to another container is checked, and so is a renamed
// container.
func Changed(old, updated []Image) []Image {
	type entry struct{ list, name, image string }
	had := make(map[entry]bool, len(old))
	for _, i := range old {
		had[entry{i.List, i.Name, i.Image}] = true
	}
	var changed []Image
	for _, i := range updated {
		if !had[entry{i.List, i.Name, i.Image}] {
			changed = append(changed, i)
		}
	}
	return changed
}

// Replaced returns, by path, the old reference of each changed image: the reference in the old
// entry of the same list and name. An image that is added has none.
func Replaced(old, changed []Image) map[string]string {
	if len(changed) == 0 {
		return nil
	}
	type entry struct{ list, name string }
	had := make(map[entry]string, len(old))
	for _, i := range old {
		had[entry{i.List, i.Name}] = i.Image
	}
	replaced := make(map[string]string, len(changed))
	for _, i := range changed {
		if image, ok := had[entry{i.List, i.Name}]; ok {
			replaced[i.Path] = image
		}
	}
	return replaced
}

// Pin returns the JSON patch operation that replaces the image by a reference with a digest. It is
// valid only for the object that the image was read from.
func (i Image) Pin(reference string) jsonpatch.Operation {
	return jsonpatch.NewOperation("replace", i.Path, reference)
}
