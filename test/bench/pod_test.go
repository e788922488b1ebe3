package bench

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// review returns the AdmissionReview that the API server sends for a new Pod of a Deployment, with
// defaults, injected volumes and managed fields.
func review(tb testing.TB, image string, i int) []byte {
	tb.Helper()
	pods := func(resource string) metav1.GroupVersionResource {
		return metav1.GroupVersionResource{Version: "v1", Resource: resource}
	}
	kind, of := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, pods("pods")
	p := pod(image, i)
	raw, err := json.Marshal(p)
	check(tb, err)
	options := runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}`)}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: "admission.k8s.io/v1"},
		Request: &admissionv1.AdmissionRequest{
			UID: types.UID(fmt.Sprintf("705ab4f5-6393-11e8-b7cc-%012d", i)), Kind: kind, Resource: of,
			RequestKind: &kind, RequestResource: &of,
			Name: p.Name, Namespace: p.Namespace, Operation: admissionv1.Create,
			UserInfo: authenticationv1.UserInfo{
				Username: "system:serviceaccount:kube-system:replicaset-controller",
				UID:      "d4b1c2d3-6393-11e8-b7cc-42010a800002",
				Groups: []string{
					"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated",
				},
				Extra: map[string]authenticationv1.ExtraValue{
					"authentication.kubernetes.io/credential-id": {"JTI=5f1c0a7e-8c1d-4d0e-9c43-0f3b5a8b9f10"},
				},
			},
			Object: runtime.RawExtension{Raw: raw}, DryRun: ptr.To(false), Options: options,
		},
	})
	check(tb, err)
	return body
}

func pod(image string, i int) *corev1.Pod {
	const hash = "5d4f8c7b9"
	var env []corev1.EnvVar
	for n := range 12 {
		env = append(env, corev1.EnvVar{
			Name:  fmt.Sprintf("ACME_SETTING_%d", n),
			Value: fmt.Sprintf("https://service-%d.shop.svc.cluster.local:8443/api/v1", n),
		})
	}
	container := func(name, image string) corev1.Container {
		probe := &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{
					Path: "/healthz", Port: intstr.FromInt32(8080), Scheme: corev1.URISchemeHTTP,
				},
			},
			TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
		}
		return corev1.Container{
			Name: name, Image: image, Args: []string{"--config", "/etc/app/config.yaml", "--log-level", "info"},
			Env:   env,
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")},
				Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("512Mi"),
				},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "configuration", MountPath: "/etc/app", ReadOnly: true},
				{
					Name: "kube-api-access-x7k2p", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount",
					ReadOnly: true,
				},
			},
			LivenessProbe: probe, ReadinessProbe: probe,
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			ImagePullPolicy: corev1.PullIfNotPresent,
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
				RunAsNonRoot: ptr.To(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}
	}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("app-%s-%05d", hash, i), GenerateName: "app-" + hash + "-", Namespace: "shop",
			UID:               types.UID(fmt.Sprintf("0a1b2c3d-6393-11e8-b7cc-%012d", i)),
			CreationTimestamp: metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)),
			Labels: map[string]string{
				"app.kubernetes.io/name": "app", "app.kubernetes.io/part-of": "shop", "pod-template-hash": hash,
				"team": "acme",
			},
			Annotations: map[string]string{
				"prometheus.io/scrape": "true", "prometheus.io/port": "8080",
				"example.com/config-hash": digestHex("configuration", 0),
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "app-" + hash,
				UID:        "1c2d3e4f-6393-11e8-b7cc-42010a800002",
				Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
			}},
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
				FieldsType: "FieldsV1",
				Time:       ptr.To(metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))),
				FieldsV1:   metav1.NewFieldsV1(managedFields()),
			}},
		},
		Spec: podSpec(container("app", image)),
	}
}

func podSpec(containers ...corev1.Container) corev1.PodSpec {
	return corev1.PodSpec{
		Containers: containers,
		Volumes: []corev1.Volume{
			{Name: "configuration", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "app"}, DefaultMode: ptr.To[int32](420),
			}}},
			{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				DefaultMode: ptr.To[int32](420), Sources: []corev1.VolumeProjection{
					{
						ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
							ExpirationSeconds: ptr.To[int64](3607), Path: "token",
						},
					},
					{ConfigMap: &corev1.ConfigMapProjection{
						LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
						Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
					}},
				},
			}}},
		},
		RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: ptr.To[int64](30),
		DNSPolicy:          corev1.DNSClusterFirst,
		ServiceAccountName: "app", DeprecatedServiceAccount: "app",
		SecurityContext: &corev1.PodSecurityContext{FSGroup: ptr.To[int64](2000)},
		SchedulerName:   "default-scheduler", Priority: ptr.To[int32](0), EnableServiceLinks: ptr.To(true),
		PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority),
		Tolerations: []corev1.Toleration{
			{
				Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists,
				Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300),
			},
			{
				Key: "node.kubernetes.io/unreachable", Operator: corev1.TolerationOpExists,
				Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300),
			},
		},
	}
}

// managedFields returns the managed fields of the Pod, as the controller manager writes them.
func managedFields() string {
	own := func(names ...string) string {
		text := `{".":{}`
		for _, name := range names {
			text += fmt.Sprintf(`,"f:%s":{}`, name)
		}
		return text + "}"
	}
	env := `{".":{}`
	for n := range 12 {
		env += fmt.Sprintf(`,"k:{\"name\":\"ACME_SETTING_%d\"}":%s`, n, own("name", "value"))
	}
	env += "}"
	probe := `{".":{},"f:failureThreshold":{},"f:httpGet":` + own("path", "port", "scheme") +
		`,"f:periodSeconds":{},"f:successThreshold":{},"f:timeoutSeconds":{}}`
	container := `{".":{},"f:args":{},"f:env":` + env + `,"f:image":{},"f:imagePullPolicy":{},"f:livenessProbe":` +
		probe + `,"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":` +
		own("containerPort", "name", "protocol") + `},"f:readinessProbe":` + probe + `,"f:resources":` +
		own("limits", "requests") + `,"f:securityContext":` +
		own("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsNonRoot") +
		`,"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}`
	return `{"f:metadata":{"f:annotations":` + own("prometheus.io/scrape", "prometheus.io/port",
		"example.com/config-hash") + `,"f:generateName":{},"f:labels":` +
		own("app.kubernetes.io/name", "app.kubernetes.io/part-of", "pod-template-hash", "team") +
		`,"f:ownerReferences":{".":{},"k:{\"uid\":\"1c2d3e4f-6393-11e8-b7cc-42010a800002\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":` +
		container +
		`},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":` +
		own("fsGroup") +
		`,"f:serviceAccount":{},"f:serviceAccountName":{},"f:terminationGracePeriodSeconds":{},"f:volumes":` +
		own("configuration") + `}}`
}
