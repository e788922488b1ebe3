{{- define "gvList" -}}
<!-- Made from api/v1alpha1 by make generate. -->

# API reference

{{ range . -}}
The group and version `{{ .GroupVersionString }}` has two kinds, both cluster-scoped: [ImagePolicy](#imagepolicy) and [TrustRoot](#trustroot). The pages on
[ImagePolicy](spec/imagepolicy.md) and [TrustRoot](spec/trustroot.md) explain them, with examples, conditions and remedies. This page lists all
fields, and the values that the API server refuses.
{{- $gv := . }}
{{- range .SortedKinds }}
{{- template "type" $gv.TypeForKind . }}
{{- end }}
{{- range .SortedTypes }}
{{- if not .GVK }}{{ template "type" . }}{{ end }}
{{- end }}
{{ end }}
{{- end -}}

{{- define "words" -}}
{{ . | replace "*" "\\*" | replace "<" "&lt;" | replace "|" "\\|" | replace "\n" " " }}
{{- end -}}

{{- define "fieldType" -}}
{{ regexReplaceAll "\\[Duration\\]\\([^)]*\\)" (markdownRenderType .Type) "duration" }}
{{- end -}}

{{- /* The messages of rules, or all messages that their expressions can return, with <the value> for the value. */ -}}
{{- define "refusals" -}}
{{- $before := .before }}{{ $between := .between -}}
{{- range .rules -}}
{{- $texts := list .Message -}}
{{- if not .Message -}}
{{- $texts = list -}}
{{- range regexFindAll "\\? \"[^\"]+\" :" (regexReplaceAll `" \+ self[.]filter[^"]*("[^"]*"[^"]*)*\[0\] \+ "` (replace "\" + self + (self.endsWith(\"/\") ? \"\" : \"/\") + \"" "<the value>/" .MessageExpression) "<the value>") -1 -}}
{{- $texts = append $texts (trimSuffix "\" :" (trimPrefix "? \"" .)) -}}
{{- end -}}
{{- end -}}
{{- range $texts }}{{ $before }}{{ template "words" . }}{{ $before = $between }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* The limits of a field. The column required is separate. Rules of a type, and of the items of an array, are listed with that type. */ -}}
{{- define "limits" -}}
{{- $array := hasSuffix " array" (markdownRenderType .Type) -}}
{{- $limits := list -}}
{{- range .Validation -}}
{{- $ofItems := and $array (or (hasPrefix "MaxLength" .) (hasPrefix "MinLength" .) (hasPrefix "Pattern" .)) -}}
{{- if not (or $ofItems (hasPrefix "Required" .) (hasPrefix "Optional" .) (hasPrefix "Type:" .) (contains "XValidation" .)) -}}
{{- $limits = append $limits (replace "items:" "of each " .) -}}
{{- end -}}
{{- end -}}
{{- template "words" (join "; " $limits) -}}
{{- $rules := index .Markers "kubebuilder:validation:items:XValidation" | default list -}}
{{- if or $array (hasPrefix "object" (markdownRenderType .Type)) (not (contains "](#" (markdownRenderType .Type))) -}}
{{- $rules = concat $rules (index .Markers "kubebuilder:validation:XValidation" | default list) -}}
{{- end -}}
{{- template "refusals" dict "before" (empty $limits | ternary "" "; ") "between" "; " "rules" $rules -}}
{{- end -}}

{{- define "required" -}}
{{- range .Validation }}{{ if hasPrefix "Required" . }}yes{{ end }}{{ end -}}
{{- end -}}

{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type }}

## {{ $type.Name }}

{{ template "words" $type.Doc }}
{{- if $type.EnumValues }} It is one of
{{- range $i, $v := $type.EnumValues }}{{ if $i }},{{ end }} `{{ $v.Name }}`{{ end }}.
{{- else if $type.IsAlias }} It is a {{ markdownRenderTypeLink $type.UnderlyingType }}{{ if $type.Validation }} ({{ join "; " $type.Validation }}){{ end }}.
{{- end }}
{{- with index $type.Markers "kubebuilder:validation:XValidation" }}

Refused with:
{{ template "refusals" dict "before" "\n- " "between" "\n- " "rules" . }}
{{- end }}
{{- if $type.References }}

Appears in
{{- range $i, $r := $type.SortedReferences }}{{ if $i }},{{ end }} {{ markdownRenderTypeLink $r }}{{ end }}.
{{- end }}
{{- if $type.Members }}

| field | type | required | default | description | limits |
|---|---|---|---|---|---|
{{- range $type.Members }}
| `{{ .Name }}` | {{ template "fieldType" . }} | {{ template "required" . }} | {{ with .Default }}`{{ . }}`{{ end }} | {{ if eq .Name "metadata" }}The name, labels and annotations.{{ else }}{{ template "words" .Doc }}{{ end }} | {{ template "limits" . }} |
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
