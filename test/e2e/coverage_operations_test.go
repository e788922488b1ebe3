package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// before is the state of the object before an operation.
type before int

const (
	nothing before = iota // the object does not exist
	allowed               // it has a signed image
	already               // it has the image of the cell, and is older than the policy
)

// operation is a way to create or change an object. The test runs it for every kind and state of
// signing that it applies to.
type operation struct {
	name string
	// brings says that the operation brings in the image.
	brings bool
	before before
	// held says that the object has a finalizer.
	held bool
	// not returns why a kind does not have the operation. Empty: it has the operation.
	not func(subject) string
	do  func(*cell) error
}

func anyKind(subject) string { return "" }

func replicated(s subject) string {
	if !s.replicas {
		return "no replicas"
	}
	return ""
}

func changeable(s subject) string { return s.frozen }
func extensible(s subject) string { return s.fixed }

func pods(s subject) string {
	if s.name != "Pod" {
		return "only Pods have it"
	}
	return ""
}

func operations() []operation {
	return slices.Concat(creations(), changes(), leftAlone(), ofPods())
}

// creations are the operations that create the object.
func creations() []operation {
	return []operation{
		{"create", true, nothing, false, anyKind, func(c *cell) error {
			if c.replicas {
				must(c.t, unstructured.SetNestedField(c.object.Object, int64(1), "spec", "replicas"))
			}
			return c.Create(c.t.Context(), c.object)
		}},
		{
			"create, zero replicas", true, nothing, false, replicated,
			func(c *cell) error { return c.Create(c.t.Context(), c.object) },
		},
		{"create, dry run", true, nothing, false, anyKind, func(c *cell) error {
			err := c.Create(c.t.Context(), c.object, client.DryRunAll)
			if _, gone := c.live(); !apierrors.IsNotFound(gone) {
				return fmt.Errorf("got the object after a dry run, want not found: %w", errors.Join(err, gone))
			}
			return err
		}},
		{"create, owned by a controller", true, nothing, false, anyKind, func(c *cell) error {
			c.object.SetOwnerReferences([]metav1.OwnerReference{
				{APIVersion: "example.com/v1", Kind: "Owner", Name: "x", UID: "1", Controller: new(true)},
			})
			return c.Create(c.t.Context(), c.object)
		}},
		{"create in another version", true, nothing, false, func(s subject) string {
			if s.name != "Rollout" {
				return "served in one version"
			}
			return ""
		}, func(c *cell) error {
			c.object.SetAPIVersion("argoproj.io/v1beta1")
			return c.Create(c.t.Context(), c.object)
		}},
		{"server-side apply", true, nothing, false, anyKind, func(c *cell) error { return c.apply(c.object) }},
		{
			"server-side apply, dry run", true, nothing, false, anyKind,
			func(c *cell) error { return c.apply(c.object, client.DryRunAll) },
		},
	}
}

// changes are the operations that bring the image into an object with a signed image.
func changes() []operation {
	return []operation{
		{"image by update", true, allowed, false, changeable, func(c *cell) error { return c.update(c.withImage) }},
		{
			"image by update, dry run", true, allowed, false, changeable,
			func(c *cell) error { return c.update(c.withImage, client.DryRunAll) },
		},
		{"image and label by update", true, allowed, false, changeable, func(c *cell) error {
			return c.update(func(o *unstructured.Unstructured) {
				c.withImage(o)
				withLabel(o)
			})
		}},
		{"image by JSON patch", true, allowed, false, changeable, func(c *cell) error { return c.patchImage() }},
		{"image by merge patch", true, allowed, false, changeable, func(c *cell) error {
			o, err := c.live()
			if err != nil {
				return err
			}
			old := o.DeepCopy()
			c.withImage(o)
			return c.Patch(c.t.Context(), o, client.MergeFrom(old))
		}},
		{"image by strategic merge patch", true, allowed, false, func(s subject) string {
			if s.custom {
				return "custom resources have no strategic merge patch"
			}
			return s.frozen
		}, func(c *cell) error { return c.patch(types.StrategicMergePatchType, c.applied().Object) }},
		{
			"image by server-side apply", true, allowed, false, changeable,
			func(c *cell) error { return c.apply(c.applied()) },
		},
		{
			"image by server-side apply, dry run", true, allowed, false, changeable,
			func(c *cell) error { return c.apply(c.applied(), client.DryRunAll) },
		},
		{"image of what is being deleted", true, allowed, true, changeable, func(c *cell) error {
			must(c.t, c.Delete(c.t.Context(), c.object.DeepCopy()))
			err := c.patchImage()
			must(c.t, c.patch(types.MergePatchType, nested(nil, "metadata", "finalizers")))
			return err
		}},
		{
			"second container", true, allowed, false, extensible,
			func(c *cell) error { return c.extend("containers", container("second", c.image(c.state))) },
		},
		{
			"init container", true, allowed, false, extensible,
			func(c *cell) error { return c.extend("initContainers", container("init", c.image(c.state))) },
		},
		{
			"image volume", true, allowed, false, extensible,
			func(c *cell) error { return c.extend("volumes", imageVolume(c.image(c.state))) },
		},
		{"container renamed", true, already, false, extensible, func(c *cell) error {
			return c.update(func(o *unstructured.Unstructured) {
				containers := c.list(c.t, o, "containers")
				first(c.t, containers)["name"] = "renamed"
				must(c.t,
					unstructured.SetNestedSlice(o.Object, containers, append(slices.Clone(c.podSpec), "containers")...))
			})
		}},
	}
}

// leftAlone are the operations that bring in no image: the object has its image already.
func leftAlone() []operation {
	return []operation{
		{"label by merge patch", false, already, false, anyKind, func(c *cell) error {
			return c.patch(types.MergePatchType, nested("web", "metadata", "labels", "tier"))
		}},
		{"label by update", false, already, false, anyKind, func(c *cell) error { return c.update(withLabel) }},
		{"applied again as it is", false, already, false, anyKind, func(c *cell) error { return c.apply(c.object) }},
		{"another field of the spec", false, already, false, anyKind, func(c *cell) error {
			return c.patch(types.MergePatchType, nested(c.setting, c.knob...))
		}},
		{"scale by the subresource", false, already, false, replicated, func(c *cell) error {
			raw := []byte(`{"spec":{"replicas":2}}`)
			if err := c.SubResource("scale").Patch(c.t.Context(), c.object.DeepCopy(),
				client.RawPatch(types.MergePatchType, raw)); err != nil {
				return err
			}
			o, err := c.live()
			if n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); err == nil && n != 2 {
				return fmt.Errorf("got %d replicas, want 2", n)
			}
			return err
		}},
		{"another image through status", false, already, false, func(s subject) string {
			if s.name == "PodTemplate" {
				return "no status"
			}
			return ""
		}, func(c *cell) error { return c.through("status") }},
		{
			"deletion", false, already, false, anyKind,
			func(c *cell) error { return c.Delete(c.t.Context(), c.object.DeepCopy()) },
		},
		{
			"deletion, dry run", false, already, false, anyKind,
			func(c *cell) error { return c.Delete(c.t.Context(), c.object.DeepCopy(), client.DryRunAll) },
		},
		{
			"finalizer removed", false, already, true, anyKind,
			func(c *cell) error { return c.patch(types.MergePatchType, nested(nil, "metadata", "finalizers")) },
		},
		{"finalizer removed while being deleted", false, already, true, anyKind, func(c *cell) error {
			must(c.t, c.Delete(c.t.Context(), c.object.DeepCopy()))
			if err := c.patch(types.MergePatchType, nested(nil, "metadata", "finalizers")); err != nil {
				return err
			}
			poll.Await(c.t, "the deletion of "+c.object.GetName(), func() error {
				if _, err := c.live(); !apierrors.IsNotFound(err) {
					return fmt.Errorf("got %w, want not found", err)
				}
				return nil
			})
			return nil
		}},
	}
}

// ofPods are the operations on subresources of Pods.
func ofPods() []operation {
	return []operation{
		{"ephemeral container by update", true, allowed, false, pods, func(c *cell) error {
			return c.retry(func(o *unstructured.Unstructured) error {
				c.add(c.t, o, "ephemeralContainers", container("debug", c.image(c.state)))
				return c.SubResource("ephemeralcontainers").Update(c.t.Context(), o)
			})
		}},
		{"ephemeral container by patch", true, allowed, false, pods, func(c *cell) error {
			raw, err := json.Marshal(nested([]any{container("debug", c.image(c.state))}, "spec", "ephemeralContainers"))
			must(c.t, err)
			return c.SubResource("ephemeralcontainers").Patch(c.t.Context(), c.object.DeepCopy(),
				client.RawPatch(types.StrategicMergePatchType, raw))
		}},
		{
			"another image through ephemeralcontainers", false, already, false, pods,
			func(c *cell) error { return c.through("ephemeralcontainers") },
		},
		{
			"another image through resize", false, already, false, pods,
			func(c *cell) error { return c.through("resize") },
		},
		{"eviction", false, already, false, pods, func(c *cell) error {
			p := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: c.object.GetNamespace(), Name: c.object.GetName()},
			}
			return c.SubResource("eviction").Create(c.t.Context(), p, &policyv1.Eviction{})
		}},
	}
}

func imageVolume(image string) map[string]any {
	return map[string]any{"name": "data", "image": map[string]any{"reference": image, "pullPolicy": "IfNotPresent"}}
}

func withLabel(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"tier": "web"}) }

func (c *cell) withImage(o *unstructured.Unstructured) { c.setImage(c.t, o, c.image(c.state)) }

// live reads the object.
func (c *cell) live() (*unstructured.Unstructured, error) {
	o := identified(c.object, nil)
	return o, c.Get(c.t.Context(), client.ObjectKeyFromObject(o), o)
}

// retry reads the object and calls do with it. It retries a conflict with a controller.
func (c *cell) retry(do func(*unstructured.Unstructured) error) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		o, err := c.live()
		if err != nil {
			return err
		}
		return do(o)
	})
}

func (c *cell) update(change func(*unstructured.Unstructured), opts ...client.UpdateOption) error {
	return c.retry(func(o *unstructured.Unstructured) error {
		change(o)
		return c.Update(c.t.Context(), o, opts...)
	})
}

func (c *cell) extend(list string, entry map[string]any) error {
	return c.update(func(o *unstructured.Unstructured) { c.add(c.t, o, list, entry) })
}

func (c *cell) patch(kind types.PatchType, patch any) error {
	raw, err := json.Marshal(patch)
	must(c.t, err)
	return c.Patch(c.t.Context(), c.object.DeepCopy(), client.RawPatch(kind, raw))
}

func (c *cell) patchImage() error {
	return c.patch(types.JSONPatchType, []any{map[string]any{
		"op": "replace", "path": "/" + strings.Join(c.podSpec, "/") + "/containers/0/image", "value": c.image(c.state),
	}})
}

// applied returns an object to apply, with only the name and the image.
func (c *cell) applied() *unstructured.Unstructured {
	return identified(c.object,
		nested([]any{container("app", c.image(c.state))}, append(slices.Clone(c.podSpec), "containers")...))
}

func (c *cell) apply(o *unstructured.Unstructured, opts ...client.ApplyOption) error {
	opts = append(opts, client.FieldOwner("coverage"), client.ForceOwnership)
	return c.Apply(c.t.Context(), client.ApplyConfigurationFromUnstructured(o), opts...)
}

// through tries to change the image through a subresource that must not change it.
func (c *cell) through(subresource string) error {
	var was string
	err := c.retry(func(o *unstructured.Unstructured) error {
		was = c.firstImage(c.t, o)
		c.setImage(c.t, o, c.repository+":smuggled")
		return c.SubResource(subresource).Update(c.t.Context(), o)
	})
	o, gone := c.live()
	if gone == nil && c.firstImage(c.t, o) != was {
		return fmt.Errorf("got image %q through %s, want %q unchanged", c.firstImage(c.t, o), subresource, was)
	}
	return errors.Join(err, gone)
}
