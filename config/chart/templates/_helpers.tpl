{{- /* The reference of the manager's image. */}}
{{- define "countersign.image" -}}
{{- .Values.image.repository }}
{{- with .Values.image.tag }}:{{ . }}{{ end }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* What Helm's charts label their objects with, besides the labels of config/. */}}
{{- define "countersign.labels" -}}
{{ include "countersign.ownLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The same of what the Prometheus operator reads. */}}
{{- define "countersign.monitoringLabels" -}}
{{ include "countersign.ownLabels" . }}
{{- with merge (dict) (.Values.prometheus.labels | default dict) (.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Further labels of the Pods. */}}
{{- define "countersign.podLabels" -}}
{{- with merge (dict) (.Values.podLabels | default dict) (.Values.commonLabels | default dict) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* The pull secrets of the chart and of a parent chart, each once. */}}
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
