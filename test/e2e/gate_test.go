package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestGate holds the tests that can share one cluster. They run in order, and the later ones stop
// servers.
func TestGate(t *testing.T) {
	t.Parallel()
	b := newBed(t, "--exempt-namespaces="+exempted)
	t.Run("roles", b.testRoles)
	t.Run("kinds", b.testKinds)
	t.Run("updates", b.testUpdates)
	t.Run("deployment", b.testDeployment)
	t.Run("pinning", b.testPinning)
	t.Run("break-glass", b.testBreakGlass)
	t.Run("metrics", b.testMetrics)
	t.Run("tag moved", b.testTagMoved)
	t.Run("policy edited", b.testPolicyEdited)
	t.Run("key revoked", b.testKeyRevoked)
	t.Run("trust root missing", b.testTrustRootMissing)
	t.Run("trust root broken", b.testTrustRootBroken)
	t.Run("server faults", b.testServerFaults)
	t.Run("key material elsewhere", b.testKeyMaterialElsewhere)
	t.Run("credentials", b.testCredentials)
	t.Run("client certificate", b.testClientCertificate)
	t.Run("gate absent", b.testGateAbsent)
	t.Run("platform", b.testPlatform)
	t.Run("webhook configurations", b.testWebhookConfigurations)
	t.Run("signature withdrawn", b.testSignatureWithdrawn)
	t.Run("server down", b.testServerDown)
	t.Run("manager down", b.testManagerDown)
	t.Run("manager back", b.testManagerBack)
	t.Run("uninstalled", b.testUninstalled)
}

func (b *bed) testRoles(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	t.Run("a repository that does not exist", func(t *testing.T) {
		b.denied(t, pod(production, registry+"/acme/unknown:v1"), http.StatusForbidden, `ImagePolicy "production"`,
			`role "ci"`, `role "qa"`)
	})
	t.Run("nothing signed", func(t *testing.T) {
		b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "ci" has not signed`,
			`role "qa" has not signed`)
	})
	digest := b.sign(t, gun, "v1", 1, "ci")
	t.Run("signed by ci alone", func(t *testing.T) {
		b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "qa" has not signed `+digest[:15]+"...",
			`signed by ci (TrustRoot "acme-notary")`)
	})
	t.Run("signed in targets/releases and targets too", func(t *testing.T) {
		must(t, b.signer.AddHash(t.Context(), gun, "v1", 512, strings.TrimPrefix(digest, "sha256:")))
		b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "qa" has not signed`)
	})
	t.Run("another namespace", func(t *testing.T) {
		b.admitted(t, pod("sandbox", gun+":v1"))
	})
	b.sign(t, gun, "v1", 1, "qa")
	t.Run("signed by both a moment ago", func(t *testing.T) {
		p := pod(production, gun+":v1")
		b.admitted(t, p)
		if got, want := p.Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
			t.Errorf("got stored image %q, want %q", got, want)
		}
	})
	t.Run("by digest alone", func(t *testing.T) {
		p := pod(production, gun+"@"+digest)
		b.admitted(t, p)
		if got, want := p.Spec.Containers[0].Image, gun+"@"+digest; got != want {
			t.Errorf("got stored image %q, want %q", got, want)
		}
	})
	t.Run("another digest", func(t *testing.T) {
		other := "@sha256:" + strings.Repeat("7", 64)
		b.denied(t, pod(production, gun+other), http.StatusForbidden, `role "ci" has not signed`,
			`role "qa" has not signed`)
		b.denied(t, pod(production, gun+":v1"+other), http.StatusForbidden, "sha256:77777777...", digest[:15]+"...")
	})
	t.Run("every kind of container", func(t *testing.T) {
		for name, add := range map[string]func(*corev1.PodSpec){
			"init": func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "x", Image: gun + ":v2"}} },
			"second": func(s *corev1.PodSpec) {
				s.Containers = append(s.Containers, corev1.Container{Name: "x", Image: gun + ":v2"})
			},
			"volume": func(s *corev1.PodSpec) {
				s.Volumes = []corev1.Volume{
					{
						Name: "x",
						VolumeSource: corev1.VolumeSource{
							Image: &corev1.ImageVolumeSource{
								Reference: gun + ":v2", PullPolicy: corev1.PullIfNotPresent,
							},
						},
					},
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				p := pod(production, gun+":v1")
				add(&p.Spec)
				b.denied(t, p, http.StatusForbidden, gun+":v2", `role "ci" has not signed`)
			})
		}
	})
	t.Run("a thousand containers", func(t *testing.T) {
		p := pod(production, gun+":v1")
		for i := range 999 {
			p.Spec.Containers = append(p.Spec.Containers,
				corev1.Container{Name: fmt.Sprintf("c-%d", i), Image: gun + ":v1"})
		}
		hidden := p.DeepCopy()
		b.admitted(t, p)
		for _, c := range p.Spec.Containers {
			if want := gun + ":v1@" + digest; c.Image != want {
				t.Fatalf("got image %q of container %s, want %q", c.Image, c.Name, want)
			}
		}
		hidden.Spec.Containers[998].Image = gun + ":v2"
		b.denied(t, hidden, http.StatusForbidden, gun+":v2")
	})
	t.Run("an image that cannot be parsed", func(t *testing.T) {
		const image = "registry.example.com/UPPER/app:v1"
		b.denied(t, pod(production, image), http.StatusForbidden, image, "cannot be read")
		c, warned := b.withWarnings(t)
		must(t, c.Create(t.Context(), pod("sandbox", image)))
		if got := warned.drain(); len(got) != 1 || !strings.Contains(got[0], image) ||
			!strings.Contains(got[0], "cannot be read") {
			t.Errorf("where no policy holds: got warnings %q, want one that the image cannot be read", got)
		}
	})
}

// testKinds creates each kind with each state of signing, and logs a table of the results.
func (b *bed) testKinds(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "both", 1, "ci", "qa")
	b.sign(t, gun, "ci-only", 2, "ci")
	var table []string
	for tag, admit := range map[string]bool{"both": true, "ci-only": false, "unsigned": false} {
		for kind, o := range workloads(gun + ":" + tag) {
			err := b.Create(t.Context(), o)
			table = append(table, fmt.Sprintf("%-22s %-9s admitted=%v", kind, tag, err == nil))
			if (err == nil) != admit {
				t.Errorf("%s with image tag %s: got %v, want admitted %t", kind, tag, err, admit)
			}
			if err != nil && !apierrors.IsForbidden(err) {
				t.Errorf("%s: got %v, want status 403", kind, err)
			}
		}
	}
	slices.Sort(table)
	t.Log("\n" + strings.Join(table, "\n"))
}

func (b *bed) testUpdates(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	p := pod(production, gun+":v1")
	b.admitted(t, p)
	t.Run("label", func(t *testing.T) {
		p.Labels = map[string]string{"a": "b"}
		must(t, b.Update(t.Context(), p))
	})
	t.Run("image", func(t *testing.T) {
		swapped := p.DeepCopy()
		swapped.Spec.Containers[0].Image = gun + ":v2"
		refused(t, b.Update(t.Context(), swapped), http.StatusForbidden, gun+":v2")
	})
	debug := func(image string) error {
		with := p.DeepCopy()
		with.Spec.EphemeralContainers = append(with.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debug", Image: image, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			}})
		return b.SubResource("ephemeralcontainers").Update(t.Context(), with)
	}
	t.Run("unsigned ephemeral container", func(t *testing.T) {
		refused(t, debug(gun+":v2"), http.StatusForbidden, gun+":v2")
	})
	t.Run("signed ephemeral container", func(t *testing.T) {
		must(t, debug(gun+":v1"))
		must(t, b.Get(t.Context(), client.ObjectKeyFromObject(p), p))
		if got, want := p.Spec.EphemeralContainers[0].Image, gun+":v1@"+digest; got != want {
			t.Errorf("got stored image %q, want %q", got, want)
		}
	})
	t.Run("deletion", func(t *testing.T) { must(t, b.Delete(t.Context(), p)) })
}

// testDeployment creates a Deployment, and the real controllers create its Pod.
func (b *bed) testDeployment(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	d := workloads(gun + ":v1")["Deployment"].(*appsv1.Deployment)
	one := int32(1)
	d.Spec.Replicas = &one
	d.Spec.Selector.MatchLabels = map[string]string{"app": "deployed"}
	d.Spec.Template.Labels = d.Spec.Selector.MatchLabels
	b.admitted(t, d)
	if got, want := d.Spec.Template.Spec.Containers[0].Image, gun+":v1"; got != want {
		t.Errorf("got the template's image %q, want %q unchanged", got, want)
	}
	poll.Await(t, "the Deployment's Pod", func() error {
		pods := &corev1.PodList{}
		if err := b.List(t.Context(), pods, client.InNamespace(production),
			client.MatchingLabels{"app": "deployed"}); err != nil {
			return err
		}
		if len(pods.Items) != 1 {
			return fmt.Errorf("got %d Pods, want one", len(pods.Items))
		}
		if got, want := pods.Items[0].Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
			return fmt.Errorf("got the Pod's image %q, want %q", got, want)
		}
		return nil
	})
}

func (b *bed) testTagMoved(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	first := b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	second := b.sign(t, gun, "v1", 0xdead0000, "ci")
	b.awaitDenied(t, "the refresh", production, gun+":v1")
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, first[:15]+"...", second[:15]+"...")
}

func (b *bed) testPolicyEdited(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "production"}}
	var original *v1alpha1.ImagePolicySpec
	b.update(t, p, func() {
		original = p.Spec.DeepCopy()
		p.Spec.RequiredRoles = append(p.Spec.RequiredRoles, v1alpha1.RoleRequirement{Role: "security"})
	})
	edited := time.Now()
	b.awaitDenied(t, "the edit to be in force", production, gun+":v1")
	t.Logf("in force %s after the edit", time.Since(edited).Round(time.Millisecond))
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "security" has not signed`)
	b.update(t, p, func() { p.Spec = *original })
	b.awaitAdmitted(t, "the policy as it was", production, gun+":v1")
}

// testKeyRevoked revokes the key of qa in the trust root. The signing server still serves the
// signatures of the key.
func (b *bed) testKeyRevoked(t *testing.T) {
	b.images++
	gun := fmt.Sprintf("%s/acme/revoked-%d", registry, b.images)
	keys, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	b.editRoot(t, func(root *v1alpha1.TrustRoot) {
		root.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(keys["qa"].KeyID)}
	})
	b.awaitDenied(t, "the revocation", production, gun+":v1")
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "qa" has not signed`)
}

// testWebhookConfigurations deletes and narrows the webhook configurations. The manager must
// restore them.
func (b *bed) testWebhookConfigurations(t *testing.T) {
	key := client.ObjectKey{Name: "countersign"}
	before := &admissionv1.ValidatingWebhookConfiguration{}
	must(t, b.Get(t.Context(), key, before))
	if len(before.OwnerReferences) != 1 || before.OwnerReferences[0].Name != "countersign-webhook-owner" {
		t.Errorf("got owners %v, want the ClusterRole countersign-webhook-owner", before.OwnerReferences)
	}
	tampering := map[string]func(ctx context.Context, c *admissionv1.ValidatingWebhookConfiguration) error{
		"deleted": func(ctx context.Context, c *admissionv1.ValidatingWebhookConfiguration) error {
			return b.Delete(ctx, c)
		},
		"ignored": func(ctx context.Context, c *admissionv1.ValidatingWebhookConfiguration) error {
			ignore := admissionv1.Ignore
			c.Webhooks[0].FailurePolicy = &ignore
			return b.Update(ctx, c)
		},
		"narrowed by labels": func(ctx context.Context, c *admissionv1.ValidatingWebhookConfiguration) error {
			c.Webhooks[0].NamespaceSelector.MatchLabels = map[string]string{"checked": "yes"}
			return b.Update(ctx, c)
		},
		"narrowed by a condition": func(ctx context.Context, c *admissionv1.ValidatingWebhookConfiguration) error {
			c.Webhooks[0].MatchConditions = append(c.Webhooks[0].MatchConditions,
				admissionv1.MatchCondition{Name: "never", Expression: "false"})
			return b.Update(ctx, c)
		},
		"emptied": func(ctx context.Context, c *admissionv1.ValidatingWebhookConfiguration) error {
			c.Webhooks = nil
			return b.Update(ctx, c)
		},
	}
	for name, tamper := range tampering {
		t.Run(name, func(t *testing.T) {
			c := &admissionv1.ValidatingWebhookConfiguration{}
			must(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				if err := b.Get(t.Context(), key, c); err != nil {
					return err
				}
				return tamper(t.Context(), c)
			}))
			poll.Await(t, "the restored configuration", func() error {
				if err := b.Get(t.Context(), key, c); err != nil {
					return err
				}
				if len(c.Webhooks) != 1 || c.Webhooks[0].String() != before.Webhooks[0].String() {
					return fmt.Errorf("got webhooks %v, want %v", c.Webhooks, before.Webhooks)
				}
				return nil
			})
		})
	}
	t.Run("mutating, deleted", func(t *testing.T) {
		c := &admissionv1.MutatingWebhookConfiguration{}
		must(t, b.Get(t.Context(), key, c))
		uid := c.UID
		must(t, b.Delete(t.Context(), c))
		poll.Await(t, "the restored configuration", func() error {
			if err := b.Get(t.Context(), key, c); err != nil {
				return err
			}
			if c.UID == uid {
				return errors.New("got the old one")
			}
			return nil
		})
	})
}

// testSignatureWithdrawn removes qa's signature on the server. The next refresh must notice.
func (b *bed) testSignatureWithdrawn(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	must(t, b.signer.Remove(t.Context(), gun, "v1", "targets/qa"))
	b.awaitDenied(t, "the refresh", production, gun+":v1")
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "qa" has not signed`)
}

func (b *bed) testServerDown(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	b.notary.Disconnect()
	b.admitted(t, pod(production, gun+":v1"))
	b.denied(t, pod(production, registry+"/acme/never-seen:v1"), http.StatusServiceUnavailable,
		`TrustRoot "acme-notary"`)
	b.denied(t, pod(production, gun+":unsigned"), http.StatusServiceUnavailable, `role "qa" has not signed`,
		"could not be asked for newer signatures")
	t.Log(
		b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse,
			v1alpha1.ReasonUnreachable))
	b.admitted(t, pod(production, gun+":v1"))
	must(t, b.notary.Reconnect())
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue,
		v1alpha1.ReasonRefreshed)
}
