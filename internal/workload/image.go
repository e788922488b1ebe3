package workload

import "gomodules.xyz/jsonpatch/v2"

// Image is one place of an object that names an image.
type Image struct {
	// Path is the JSON pointer to the reference, such as /spec/template/spec/containers/0/image.
	Path string
	// List is the list that the entry is in: initContainers, containers, ephemeralContainers or
	// volumes.
	List string
	// Name is the name of the container or volume.
	Name string
	// Image is the reference as written; empty where there is none.
	Image string
}

// Changed returns the images that an update brings in. An image stays where the old object has the
// same reference in an entry of the same list and name, wherever in the list that is. Everything
// else has changed, so an image that is moved from one container to another is checked, and so is a
// container under a new name.
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

// Replaced returns, by path, what each of the images that an update changes takes the place of: the
// reference in the old entry of the same list and name. What is added takes no place.
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

// Pin returns the JSON patch operation that replaces the image by a reference to the digest that
// was verified. It holds for the very object that the image was read from.
func (i Image) Pin(reference string) jsonpatch.Operation {
	return jsonpatch.NewOperation("replace", i.Path, reference)
}
