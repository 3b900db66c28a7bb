{{- define "ams.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* What every object is called: the release's name, with the chart's unless it has that already. */ -}}
{{- define "ams.fullname" -}}
{{- $name := include "ams.name" . -}}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $both .Values.fullnameOverride | trunc 57 | trimSuffix "-" -}}
{{- end -}}

{{- define "ams.selector" -}}
app.kubernetes.io/name: {{ include "ams.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ams.labels" -}}
{{ include "ams.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "ams.account" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "ams.fullname" .) "default" -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{- /* A value as a flag has it: whole numbers without a point or an exponent. */ -}}
{{- define "ams.value" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- define "ams.flags" -}}
{{- range $flag, $value := .Values.flags }}
{{- if kindIs "slice" $value }}
{{- range $value }}
- {{ printf "--%s=%s" $flag (include "ams.value" .) | quote }}
{{- end }}
{{- else if kindIs "bool" $value }}
{{- if $value }}
- {{ printf "--%s" $flag | quote }}
{{- end }}
{{- else }}
- {{ printf "--%s=%s" $flag (include "ams.value" $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}
