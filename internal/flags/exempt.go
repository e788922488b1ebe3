package flags

import (
	"slices"
	"strings"
)

// Exempt are the namespaces that are exempt from admission.
type Exempt struct {
	// Names are full names, sorted.
	Names []string
	// Prefixes exempt every namespace whose name begins with one.
	Prefixes []string
}

// Exempt returns the namespaces that are always exempt, those of OpenShift on that platform, and
// those of the flag. On OpenShift only cluster administrators can create a namespace that begins
// with openshift-.
func (s Settings) Exempt(openShift bool) Exempt {
	e := Exempt{
		Names: append([]string{"kube-system", "kube-node-lease", "kube-public", s.Namespace}, s.ExemptNamespaces...),
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
