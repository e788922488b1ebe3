package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/olm"
)

// install checks install modes, Deployment and containers.
func (b *bundle) install() {
	s := b.csv.Spec
	modes := map[string]bool{}
	for _, m := range s.InstallModes {
		modes[m.Type] = m.Supported
	}
	want := map[string]bool{
		"OwnNamespace": false, "SingleNamespace": false, "MultiNamespace": false, "AllNamespaces": true,
	}
	if len(s.InstallModes) != len(want) || !maps.Equal(modes, want) {
		b.add("install", "the install modes are %v, not %v", s.InstallModes, want)
	}
	if s.Webhooks != nil || s.APIServices != nil {
		b.add("install",
			"it defines webhooks or API services, but the operator creates its webhook configurations itself")
	}
	if s.Install.Strategy != "deployment" || len(s.Install.Spec.Deployments) != 1 {
		b.add("install", "the strategy must be deployment, with one Deployment")
	}
	for _, d := range s.Install.Spec.Deployments {
		granted := slices.ContainsFunc(s.Install.Spec.ClusterPermissions, func(p olm.Permission) bool {
			return p.ServiceAccountName == d.Spec.Template.Spec.ServiceAccountName
		})
		if !granted {
			b.add("install", "Deployment %q runs as %q, which OLM does not create, because it has no permissions",
				d.Name,
				d.Spec.Template.Spec.ServiceAccountName)
		}
		b.platforms(d)
		for key, value := range d.Spec.Selector.MatchLabels {
			if d.Spec.Template.Labels[key] != value {
				b.add("install", "the selector of Deployment %q does not select its Pods", d.Name)
			}
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			b.container(c)
		}
	}
}

// platforms checks that the Pods run only on nodes of the platforms that the labels declare.
func (b *bundle) platforms(d olm.Deployment) {
	promised, chosen := map[string][]string{}, map[string][]string{}
	for label := range b.csv.Metadata.Labels {
		if kind, name, ok := strings.Cut(strings.TrimPrefix(label, "operatorframework.io/"), "."); ok &&
			(kind == "os" || kind == "arch") {
			promised["kubernetes.io/"+kind] = append(promised["kubernetes.io/"+kind], name)
		}
	}
	// There must be one term, because a node needs to match only one of several.
	if a := d.Spec.Template.Spec.Affinity; a != nil && a.NodeAffinity != nil &&
		a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		if terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms; len(terms) == 1 {
			for _, e := range terms[0].MatchExpressions {
				if e.Operator == corev1.NodeSelectorOpIn {
					chosen[e.Key] = append(chosen[e.Key], e.Values...)
				}
			}
		}
	}
	for key, names := range promised {
		if list(names) != list(chosen[key]) {
			b.add("install", "the labels declare %s for %s, but the Pods run on %s", key, list(names),
				list(chosen[key]))
		}
	}
}

func (b *bundle) container(c corev1.Container) {
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		b.add("install", "the container %q requests no CPU or no memory", c.Name)
	}
	if c.LivenessProbe == nil || c.ReadinessProbe == nil {
		b.add("install", "the container %q lacks a probe", c.Name)
	}
	for _, e := range c.Env {
		if strings.HasSuffix(strings.ToUpper(e.Name), "_PROXY") {
			b.add("install", "the container %q sets %s, which the cluster must set", c.Name, e.Name)
		}
	}
	for _, arg := range c.Args {
		if strings.HasPrefix(arg, "--namespace") {
			b.add("install", "the container %q has the flag --namespace, but OLM chooses the namespace", c.Name)
		}
	}
}

// podSecurity checks that the Pods meet the restricted Pod Security Standard and set no user: on
// OpenShift, the security context constraint restricted-v2 chooses one.
func (b *bundle) podSecurity() {
	for _, d := range b.csv.Spec.Install.Spec.Deployments {
		p := d.Spec.Template.Spec
		if p.HostNetwork || p.HostPID || p.HostIPC {
			b.add("pod security", "Deployment %q shares namespaces with its node", d.Name)
		}
		for _, v := range p.Volumes {
			if v.HostPath != nil {
				b.add("pod security", "the volume %q is a hostPath", v.Name)
			}
		}
		if s := p.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil ||
			s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			b.add("pod security", "the Pods of %q may run as root, or without a seccomp profile", d.Name)
		} else if s.RunAsUser != nil || s.RunAsGroup != nil || s.FSGroup != nil {
			b.add("pod security", "the Pods of %q set a user or a group", d.Name)
		}
		for _, c := range append(slices.Clone(p.InitContainers), p.Containers...) {
			s := c.SecurityContext
			if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil ||
				!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 ||
				s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				b.add("pod security",
					"the container %q may gain privileges, has capabilities, or may write to its root", c.Name)
			} else if s.RunAsUser != nil || s.RunAsGroup != nil || s.Privileged != nil || s.RunAsNonRoot != nil ||
				s.SeccompProfile != nil {
				b.add("pod security",
					"the container %q sets a user or a group, is privileged, or overrides its Pod", c.Name)
			}
		}
	}
}

// TrustedCAFolder is the folder for CAs in addition to those of the image. Go reads it at startup.
const TrustedCAFolder = "/etc/pki/tls/certs"

// trustedCA checks that the containers mount the ConfigMap with the cluster's CAs in
// TrustedCAFolder. The ConfigMap is optional, so on a cluster nothing else would detect a wrong
// name.
func (b *bundle) trustedCA() {
	i := slices.IndexFunc(b.extra, func(o unstructured.Unstructured) bool {
		return o.GetKind() == "ConfigMap" && o.GetLabels()["config.openshift.io/inject-trusted-cabundle"] == "true"
	})
	if i < 0 {
		b.add("trusted CA", "there is no ConfigMap for the CAs of the cluster")
		return
	}
	for _, d := range b.csv.Spec.Install.Spec.Deployments {
		volumes := map[string]bool{}
		for _, v := range d.Spec.Template.Spec.Volumes {
			volumes[v.Name] = v.ConfigMap != nil && v.ConfigMap.Name == b.extra[i].GetName()
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			if !slices.ContainsFunc(c.VolumeMounts,
				func(m corev1.VolumeMount) bool { return volumes[m.Name] && m.MountPath == TrustedCAFolder }) {
				b.add("trusted CA", "the container %q does not mount %s in %s", c.Name, key(b.extra[i]),
					TrustedCAFolder)
			}
		}
	}
}

// images checks that the related images are exactly the images that run, because tools mirror the
// related images.
func (b *bundle) images() {
	run := map[string]bool{}
	for _, d := range b.csv.Spec.Install.Spec.Deployments {
		p := d.Spec.Template.Spec
		for _, c := range append(slices.Clone(p.InitContainers), p.Containers...) {
			run[c.Image] = true
			for _, e := range c.Env {
				if strings.HasPrefix(e.Name, "RELATED_IMAGE_") {
					run[e.Value] = true
				}
			}
		}
	}
	related := map[string]bool{}
	for _, i := range b.csv.Spec.RelatedImages {
		related[i.Image] = true
		if i.Name == "" {
			b.add("images", "the related image %q has no name", i.Image)
		}
	}
	if !maps.Equal(run, related) {
		b.add("images", "the related images are %s, but %s run", list(slices.Collect(maps.Keys(related))),
			list(slices.Collect(maps.Keys(run))))
	}
	container := b.csv.Metadata.Annotations[olm.AnnotationContainerImage]
	if !run[container] {
		b.add("images", "%s %q does not run", olm.AnnotationContainerImage, container)
	}
	run[container] = true
	for image := range run {
		ref, err := reference.ParseNormalizedNamed(image)
		if err != nil {
			b.add("images", "%q: %v", image, err)
			continue
		}
		b.named(image, ref)
	}
}

// named checks that an image is named by digest alone, or by tag alone for a committed bundle.
func (b *bundle) named(image string, ref reference.Named) {
	_, pinned := ref.(reference.Canonical)
	_, tagged := ref.(reference.Tagged)
	switch {
	case b.byTag:
		if pinned || !tagged {
			b.add("images", "%q is not named by tag alone", image)
		}
		return
	case !pinned:
		b.add("images", "%q is not named by digest", image)
	}
	if tagged {
		b.add("images", "%q has a tag, which tools that mirror images refuse", image)
	}
}
