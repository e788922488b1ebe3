{{- /* The name of the Pod and the ServiceAccount of helm test, in the namespace of the release. */}}
{{- define "countersign.gateTest" -}}
countersign-gate-test
{{- end }}

{{- /*
The name of the test's namespace and of its policy. Helm deletes a namespace of this name before and
after the test, so the name has a hash that no other namespace has.
*/}}
{{- define "countersign.gateTestNamespace" -}}
{{ include "countersign.gateTest" . }}-{{ printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | trunc 12 }}
{{- end }}

{{- define "countersign.gateTestLabels" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/component: gate-test
{{ include "countersign.labels" . }}
{{- end }}

{{- /*
Helm deletes everything when a test succeeds, and before the next test. After a failure it keeps the
Pod, for its log.
*/}}
{{- define "countersign.gateTestHook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
