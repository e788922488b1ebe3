{{- /* The reference of the manager's image. */}}
{{- define "countersign.image" -}}
{{- .Values.image.repository }}
{{- with .Values.image.tag }}:{{ . }}{{ end }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* The labels that every object has in addition to those of config/. */}}
{{- define "countersign.labels" -}}
{{ include "countersign.ownLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The labels of ServiceMonitor and PrometheusRule in addition to those of config/. */}}
{{- define "countersign.monitoringLabels" -}}
{{ include "countersign.ownLabels" . }}
{{- with merge (dict) (.Values.prometheus.labels | default dict) (.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The additional labels of the Pods. */}}
{{- define "countersign.podLabels" -}}
{{- with merge (dict) (.Values.podLabels | default dict) (.Values.commonLabels | default dict) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* The pull secrets of this chart and of a parent chart, without duplicates. */}}
{{- define "countersign.pullSecrets" -}}
{{- $names := list }}
{{- range concat (.Values.imagePullSecrets | default list) ((.Values.global | default dict).imagePullSecrets | default list) }}
{{- $names = append $names (kindIs "string" . | ternary . (kindIs "map" . | ternary . dict).name) }}
{{- end }}
{{- range uniq $names }}
- name: {{ . }}
{{- end }}
{{- end }}

{{- define "countersign.ownLabels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
