package workload

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxFurther is the maximum number of further kinds.
	maxFurther = 64
	// maxSegments is the maximum number of fields in the path of a pod template. Each adds a level
	// to every object that is decoded.
	maxSegments = 16
	// maxSegment is the maximum length of one field name in the path, in bytes.
	maxSegment = 63
)

const furtherExample = "such as rollouts.v1alpha1.argoproj.io=spec.template"

// parseKind parses a further kind, RESOURCE.VERSION.GROUP=PATH: the full name of the resource as
// kubectl accepts it, and the dotted path of the pod template. The field spec of the template is
// the PodSpec. The path begins with spec, because the API server does not call the webhook for an
// update that leaves the spec unchanged. The error says what is wrong, and gives an example.
func parseKind(s string) (Kind, error) {
	name, path, ok := strings.Cut(s, "=")
	parts := strings.SplitN(name, ".", 3)
	if !ok || len(parts) != 3 {
		return Kind{}, fmt.Errorf("must be RESOURCE.VERSION.GROUP=PATH, %s", furtherExample)
	}
	resource, version, group := parts[0], parts[1], parts[2]
	if problems := validation.IsDNS1035Label(resource); len(problems) > 0 {
		return Kind{}, fmt.Errorf(
			"%.64q is not the name of a resource, its lower-case plural without a subresource, %s", resource,
			furtherExample)
	}
	if !regexp.MustCompile(`^v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?$`).MatchString(version) {
		return Kind{}, fmt.Errorf("%.64q between resource and group is not a version like v1 or v1alpha1, %s", version,
			furtherExample)
	}
	if problems := validation.IsDNS1123Subdomain(group); len(problems) > 0 {
		return Kind{}, fmt.Errorf("%.64q is not the name of an API group, %s", group, furtherExample)
	}
	if err := checkPath(path); err != nil {
		return Kind{}, err
	}
	k := newKind(resource+"."+group, group, resource, path+".spec")
	k.Version, k.Template = version, path
	return k, nil
}

// checkPath returns an error for a path that cannot lead to a pod template, or that lies outside of
// the spec.
func checkPath(path string) error {
	segments := strings.Split(path, ".")
	if segments[0] != "spec" {
		return fmt.Errorf(
			"the path %.64q must begin with spec: an update that leaves the spec unchanged is not checked, so a "+
				"template outside of it could change without a check", path)
	}
	if len(segments) > maxSegments {
		return fmt.Errorf("the path has %d segments, at most %d can be read", len(segments), maxSegments)
	}
	field := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)
	for _, segment := range segments {
		if len(segment) > maxSegment || !field.MatchString(segment) {
			return fmt.Errorf(
				"%.64q in the path is not the name of a field: at most %d letters, digits, - and _, the first a "+
					"letter, and no lists, %s", segment, maxSegment, furtherExample)
		}
	}
	return nil
}

// With returns the kinds and further ones, each given as RESOURCE.VERSION.GROUP=PATH, such as
// rollouts.v1alpha1.argoproj.io=spec.template. It returns an error for a resource that is listed
// already, in any version: the API server converts between versions, and the object would be parsed
// in two ways. The error quotes the value.
func (ks Kinds) With(values []string) (Kinds, error) {
	if len(values) > maxFurther {
		return nil, fmt.Errorf("%d further kinds, at most %d can be checked", len(values), maxFurther)
	}
	all, errs := append(Kinds{}, ks...), []error(nil)
	for _, value := range values {
		k, err := parseKind(value)
		if err == nil {
			err = all.refuse(k)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%.256q: %w", value, err))
			continue
		}
		all = append(all, k)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return all, nil
}

// refuse returns an error if a kind cannot be added.
func (ks Kinds) refuse(added Kind) error {
	for _, k := range ks {
		switch {
		case k.Group != added.Group || k.Resource != added.Resource:
		case k.Template == "":
			return fmt.Errorf("%s is checked in any case; leave it out", k.Name)
		default:
			return fmt.Errorf("%s is given twice; requests in its other versions are converted, give one", k.Name)
		}
	}
	return nil
}
