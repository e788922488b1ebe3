package convert

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// add sorts a document by its product.
func (c *converter) add(d value) error {
	if d.node.Kind != yaml.MappingNode {
		return d.fault("is no mapping: expected the policies of one of %s", names())
	}
	source, err := detect(d)
	if err != nil {
		return err
	}
	if source == "" { // an object that policies refer to
		return nil
	}
	if c.options.From != "" && c.options.From != source {
		return d.fault("is of %s, and --from names %s", source, c.options.From)
	}
	switch source {
	case Connaisseur, Containers:
		first := &c.connaisseur
		if source == Containers {
			first = &c.containers
		}
		if *first != nil {
			return d.fault("is a second file of %s: convert one at a time", source)
		}
		*first = &d
	case Portieris:
		c.portieris = append(c.portieris, d)
	case PolicyController:
		if kind, _ := d.peek("kind"); kind.node.Value == "TrustRoot" {
			name, err := objectName(d)
			if err != nil {
				return err
			}
			c.sigstoreTR[name] = d
			return nil
		}
		c.sigstore = append(c.sigstore, d)
	case OpenShift:
		c.openshift = append(c.openshift, d)
	}
	return nil
}

func names() string {
	var all []string
	for _, s := range Sources() {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}

// detect returns the product of a document. It is empty for an object that policies may refer to.
func detect(d value) (Source, error) {
	version, isObject := d.peek("apiVersion")
	kind, hasKind := d.peek("kind")
	if isObject && hasKind {
		group, _, _ := strings.Cut(version.node.Value, "/")
		switch kindOf := kind.node.Value; {
		case group == "portieris.cloud.ibm.com" && (kindOf == "ImagePolicy" || kindOf == "ClusterImagePolicy"):
			return Portieris, nil
		case group == "policy.sigstore.dev" && (kindOf == "ClusterImagePolicy" || kindOf == "TrustRoot"):
			return PolicyController, nil
		case group == "config.openshift.io" && (kindOf == "ImagePolicy" || kindOf == "ClusterImagePolicy"):
			return OpenShift, nil
		case version.node.Value == "v1" && (kindOf == "Secret" || kindOf == "Namespace" || kindOf == "ConfigMap"):
			if kindOf == "Secret" {
				name, err := objectName(d)
				if err != nil {
					return "", err
				}
				if _, twice := d.c.secrets[name]; twice {
					return "", d.fault("is a second Secret %q: convert the policies of each namespace apart",
						short(name))
				}
				d.c.secrets[name] = d
			}
			return "", nil
		case group == "countersign.dev":
			return "", d.fault("is of Countersign already: apply it as it is")
		default:
			return "", d.fault("has the kind %s of %s, which is none of the policies that are converted: those of %s",
				kindOf, version.node.Value, names())
		}
	}
	if def, ok := d.peek("default"); ok && def.node.Kind == yaml.SequenceNode {
		return Containers, nil
	}
	if _, ok := d.peek("transports"); ok {
		return Containers, nil
	}
	if application, ok := d.peek("application"); ok {
		d = application
	}
	_, validators := d.peek("validators")
	_, policy := d.peek("policy")
	if validators || policy {
		return Connaisseur, nil
	}
	return "", d.fault("is none of the policies that are converted: those of %s", names())
}

// objectName returns the name of a Kubernetes object.
func objectName(d value) (string, error) {
	metadata, ok := d.peek("metadata")
	if !ok {
		return "", d.fault("has no metadata.name")
	}
	name, ok := metadata.peek("name")
	if !ok || name.node.Value == "" {
		return "", metadata.fault("has no name")
	}
	return name.node.Value, nil
}

// head reads apiVersion, kind and metadata of a policy, and refuses a second one of its name.
func (c *converter) head(d value, namespaced bool) (name, namespace string, err error) {
	d.get("apiVersion")
	kind, _ := d.get("kind")
	d.get("metadata")
	d.get("spec")
	d.get("status")
	if name, err = objectName(d); err != nil {
		return "", "", err
	}
	metadata, _ := d.peek("metadata")
	if field, ok := metadata.peek("namespace"); ok && namespaced {
		namespace = field.node.Value
	}
	if namespaced && namespace == "" {
		if namespace = c.options.SourceNamespace; namespace == "" {
			return "", "", metadata.fault("has no namespace: write it, or name it with --namespace")
		}
	}
	version, _ := d.peek("apiVersion")
	group, _, _ := strings.Cut(version.node.Value, "/")
	key := group + "/" + kind.node.Value + "/" + namespace + "/" + name
	if first, ok := c.names[key]; ok {
		return "", "", d.fault("is a second %s %q: the first is in %s, line %d", kind.node.Value, name, first.file,
			first.node.Line)
	}
	c.names[key] = d
	return name, namespace, nil
}

// specOf returns the spec of an object.
func specOf(d value) (value, error) {
	spec, ok := d.peek("spec")
	if !ok {
		return value{}, d.fault("has no spec")
	}
	spec.name, spec.path = "", "spec"
	return spec, spec.mapping()
}

// one returns an error unless exactly one of the fields is there.
func (v value) one(fields ...string) error {
	n := 0
	for _, name := range fields {
		if _, ok := v.peek(name); ok {
			n++
		}
	}
	if n != 1 {
		return v.fault("needs exactly one of %s", strings.Join(slices.Compact(fields), ", "))
	}
	return nil
}
