package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/countersign-dev/countersign/internal/olm"
)

// grants is a set of single permissions. Each says who may do what to which resource in which
// namespace, or in the whole cluster.
type grants map[string]bool

const cluster = "the cluster"

// rights checks that the bundle grants exactly the permissions that config/ grants, to the same
// subjects, and that none of them has a wildcard.
func (b *bundle) rights() {
	got, want := granted(b.extra, &b.problems), granted(b.rendered, &b.problems)
	for _, p := range b.csv.Spec.Install.Spec.ClusterPermissions {
		got.add(subject(olm.Namespace, p.ServiceAccountName), cluster, p.Rules)
	}
	// OLM grants these in the whole cluster if the operator is installed for all namespaces.
	for _, p := range b.csv.Spec.Install.Spec.Permissions {
		got.add(subject(olm.Namespace, p.ServiceAccountName), cluster, p.Rules)
		b.add("rights",
			"permissions would apply in the whole cluster: use a Role and a RoleBinding of the bundle instead")
	}
	for _, g := range slices.Sorted(maps.Keys(got)) {
		if !want[g] {
			b.add("rights", "the bundle grants more than config: %s", g)
		}
		if strings.Contains(g, "*") {
			b.add("rights", "a wildcard: %s", g)
		}
	}
	for _, g := range slices.Sorted(maps.Keys(want)) {
		if !got[g] {
			b.add("rights", "the bundle grants less than config: %s", g)
		}
	}
}

func subject(namespace, name string) string { return namespace + "/" + name }

// granted returns the permissions that the bindings among objects grant.
func granted(objects []unstructured.Unstructured, p *problems) grants {
	rules := map[string][]rbacv1.PolicyRule{}
	for _, o := range objects {
		if o.GetKind() == "Role" || o.GetKind() == "ClusterRole" {
			var role rbacv1.ClusterRole
			decode(o, &role, p)
			rules[key(o)] = role.Rules
		}
	}
	g := grants{}
	for _, o := range objects {
		scope := cluster
		switch o.GetKind() {
		case "RoleBinding":
			// The objects of a bundle have no namespace, because OLM sets it.
			if scope = o.GetNamespace(); scope == "" {
				scope = olm.Namespace
			}
		case "ClusterRoleBinding":
		default:
			continue
		}
		var binding rbacv1.ClusterRoleBinding
		decode(o, &binding, p)
		role, ok := rules[binding.RoleRef.Kind+"/"+binding.RoleRef.Name]
		if !ok {
			p.add("rights", "%s refers to %s %q, which does not exist", key(o), binding.RoleRef.Kind,
				binding.RoleRef.Name)
		}
		for _, s := range binding.Subjects {
			g.add(subject(s.Namespace, s.Name), scope, role)
		}
	}
	return g
}

func decode(o unstructured.Unstructured, into any, p *problems) {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
		p.add("rights", "%s: %v", key(o), err)
	}
}

func (g grants) add(who, scope string, rules []rbacv1.PolicyRule) {
	for _, r := range rules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{"any name"}
		}
		for _, verb := range r.Verbs {
			for _, url := range r.NonResourceURLs {
				g[fmt.Sprintf("%s may %s %s", who, verb, url)] = true
			}
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, name := range names {
						g[fmt.Sprintf("%s may %s %s.%s (%s) in %s", who, verb, resource, group, name, scope)] = true
					}
				}
			}
		}
	}
}

// owner checks that OLM deletes cluster-scoped objects with the ClusterServiceVersion, among them
// the owner of the webhook configurations. Without it, the configurations would outlive the
// operator and block all admission.
func (b *bundle) owner() {
	found := false
	for _, o := range b.extra {
		kind := olm.Kinds()[o.GetKind()]
		if kind.Namespaced || o.GetKind() == "CustomResourceDefinition" {
			for label := range olm.OwnerLabels("") {
				if _, ok := o.GetLabels()[label]; ok {
					b.add("owner", "%s has the label %s, so OLM would treat it as its own", key(o), label)
				}
			}
			continue
		}
		for label, want := range olm.OwnerLabels(b.csv.Metadata.Name) {
			if got := o.GetLabels()[label]; got != want {
				b.add("owner", "%s would not be deleted: its label %s is %q, not %q", key(o), label, got, want)
			}
		}
		if o.GetKind() == "ClusterRole" && o.GetName() == olm.WebhookOwner {
			found = true
			if rules, _, _ := unstructured.NestedSlice(o.Object, "rules"); len(rules) > 0 {
				b.add("owner", "%s must not grant anything", key(o))
			}
		}
	}
	if !found {
		b.add("owner", "ClusterRole %s is missing: the webhook configurations would not be deleted", olm.WebhookOwner)
	}
}
