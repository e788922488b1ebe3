package flags

import (
	"slices"
	"strings"
)

// Exempt are the namespaces that admission leaves alone.
type Exempt struct {
	// Names are sorted.
	Names []string
	// Prefixes stand for every namespace whose name begins with one.
	Prefixes []string
}

// Exempt returns the namespaces that are always exempt, those of the platform where that is
// OpenShift, and those that the flag names. On OpenShift no more than cluster administrators can
// make a namespace that begins with openshift-.
func (o Options) Exempt(openShift bool) Exempt {
	e := Exempt{
		Names: append([]string{"kube-system", "kube-node-lease", "kube-public", o.Namespace}, o.ExemptNamespaces...),
	}
	if openShift {
		e.Names = append(e.Names, "openshift")
		e.Prefixes = []string{"openshift-"}
	}
	slices.Sort(e.Names)
	e.Names = slices.Compact(e.Names)
	return e
}

// Has reports whether a namespace is exempt.
func (e Exempt) Has(namespace string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(namespace, prefix) }
	return slices.Contains(e.Names, namespace) || slices.ContainsFunc(e.Prefixes, begins)
}
