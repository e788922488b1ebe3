package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// labelled returns the changes that a label on every object and on the Pods makes.
func labelled(objects map[string]any, label, value string) map[string]any {
	want := map[string]any{podPath + "metadata.labels." + label: value}
	for key := range objects {
		want[key+".metadata.labels."+label] = value
	}
	return want
}

// ServiceMonitor and PrometheusRule have the labels of prometheus.labels, which override
// commonLabels, so that a Prometheus can select them.
func TestMonitoringLabels(t *testing.T) {
	const on = "prometheus: {enabled: true"
	standard := rendered(t, "{"+on+"}}")
	set := rendered(t,
		"{"+on+
			", labels: {release: stack, team: b}, annotations: {a: b}, interval: 15s}, commonLabels: {team: a}, "+
			"podLabels: {team: c}}")
	want := labelled(standard, "team", "a")
	want[podPath+"metadata.labels.team"] = "c"
	for _, key := range []string{"ServiceMonitor/countersign", "PrometheusRule/countersign"} {
		want[key+".metadata.labels.release"] = "stack"
		want[key+".metadata.labels.team"] = "b"
		want[key+".metadata.annotations"] = map[string]any{"a": "b"}
	}
	want["ServiceMonitor/countersign.spec.endpoints[0].interval"] = "15s"
	if diff := cmp.Diff(want, differences(standard, set)); diff != "" {
		t.Error(diff)
	}
}

// The chart uses the pull secrets of a parent chart in addition to its own, as names and as
// objects, without duplicates.
func TestPullSecretsOfAParent(t *testing.T) {
	set := rendered(t, "{imagePullSecrets: [{name: a}], global: {imagePullSecrets: [a, b, {name: c}]}}")
	want := map[string]any{
		podPath + "spec.imagePullSecrets": []any{
			map[string]any{"name": "a"}, map[string]any{"name": "b"}, map[string]any{"name": "c"},
		},
	}
	if diff := cmp.Diff(want, differences(rendered(t, "{}"), set)); diff != "" {
		t.Error(diff)
	}
}

// TestThreatArgumentsOpenNothing checks that the chart refuses arguments and variables that
// override its values, hide the gate from the API servers, select another API server, or weaken how
// Go verifies certificates.
func TestThreatArgumentsOpenNothing(t *testing.T) {
	names := []string{"kubeconfig", "webhook-url", "cert-dir", "webhook-client-ca", "use-pull-secrets", "namespace"}
	for _, f := range managerFlags() {
		names = append(names, f.name)
	}
	container, err := descend(rendered(t, "{ports: {webhook: 1024, health: 1025}}")[deployment], container())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range container["args"].([]any) {
		name, _, _ := strings.Cut(strings.TrimPrefix(a.(string), "--"), "=")
		names = append(names, name)
	}
	refused := map[string]string{
		"{extraArgs: [--exempt-namespaces, prod]}": "extraArgs", "{extraArgs: ['-v=1']}": "extraArgs",
		"{extraArgs: [prod]}": "extraArgs",
		"{extraEnv: [{name: COUNTERSIGN_EXEMPT_NAMESPACES, value: prod}]}":                                       "extraEnv[0].name: COUNTERSIGN_EXEMPT_NAMESPACES cannot be set",
		"{extraEnv: [{name: COUNTERSIGN_WEBHOOK_CLIENT_CA, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}": "extraEnv[0].name: COUNTERSIGN_WEBHOOK_CLIENT_CA cannot be set",
		"{extraEnv: [{name: TZ, value: UTC}, {name: KUBECONFIG, value: /tmp/k}]}":                                "extraEnv[1].name: KUBECONFIG cannot be set",
		"{extraEnv: [{name: KUBERNETES_SERVICE_HOST, value: 192.0.2.1}]}":                                        "extraEnv[0].name: KUBERNETES_SERVICE_HOST cannot be set",
		"{extraEnv: [{name: KUBERNETES_SERVICE_PORT, value: '8443'}]}":                                           "extraEnv[0].name: KUBERNETES_SERVICE_PORT cannot be set",
		"{extraEnv: [{name: GODEBUG, value: rsa1024min=0}]}":                                                     "extraEnv[0].name: GODEBUG cannot be set",
		"{extraEnv: [{name: 'KUBECONFIG=', value: /tmp/k}]}":                                                     "extraEnv/0/name",
		"{extraEnv: [{name: \"KUBECONFIG\\n\", value: /tmp/k}]}":                                                 "extraEnv/0/name",
		"{podAnnotations: {kubectl.kubernetes.io/default-container: x}}":                                         "podAnnotations: the chart sets kubectl.kubernetes.io/default-container itself",
		"{commonLabels: {app.kubernetes.io/name: x}}":                                                            "commonLabels: app.kubernetes.io/name is a label that the chart sets itself",
		"{commonLabels: {helm.sh/chart: x}}":                                                                     "commonLabels: helm.sh/chart is a label that the chart sets itself",
		"{prometheus: {labels: {app.kubernetes.io/name: x}}}":                                                    "prometheus.labels: app.kubernetes.io/name is a label that the chart sets itself",
		"{ports: {webhook: 443}}":                                                                                "ports/webhook",
		"{ports: {webhook: 8443}}":                                                                               "must be different",
		"{updateStrategy: {type: Recreate}}":                                                                     "updateStrategy/type",
		"{dnsPolicy: None}":                                                                                      "dnsPolicy",
		"{networkPolicy: {ingressFrom: [{cidr: 192.0.2.0/24}]}}":                                                 "networkPolicy/ingressFrom",
	}
	for _, name := range names {
		refused["{extraArgs: ['--"+name+"=x']}"] = "extraArgs[0]: "
	}
	for _, f := range managerFlags() {
		refused["{extraArgs: ['--metrics-secure=false', '--"+f.name+"=x']}"] = "extraArgs[1]: --" + f.name +
			" has a value in this chart: set " + f.value + " instead"
	}
	for values, want := range refused {
		if _, err := theBed(t).template(t.Context(), values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", values, err, want)
		}
	}
	for _, name := range []string{"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOMEMLIMIT"} {
		if _, err := theBed(t).template(t.Context(), "{extraEnv: [{name: "+name+", value: x}]}"); err != nil {
			t.Errorf("%s: got %v, want no error", name, err)
		}
	}
}
