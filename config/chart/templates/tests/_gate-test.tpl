{{- /* What helm test makes: the Pod and its ServiceAccount in the namespace of the release. */}}
{{- define "countersign.gateTest" -}}
countersign-gate-test
{{- end }}

{{- /*
The namespace in which the gate is tried, and its policy. Helm deletes a namespace of this name before and after the test, so the name is one
that nobody has, whatever the release is named.
*/}}
{{- define "countersign.gateTestNamespace" -}}
{{ include "countersign.gateTest" . }}-{{ printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | trunc 12 }}
{{- end }}

{{- define "countersign.gateTestLabels" -}}
app.kubernetes.io/name: countersign
app.kubernetes.io/component: gate-test
{{ include "countersign.labels" . }}
{{- end }}

{{- /* Nothing is left of a test that succeeds, nor of the one before. Of one that fails, Helm leaves the Pod, for its log. */}}
{{- define "countersign.gateTestHook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
