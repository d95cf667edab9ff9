{{- /* The names are fixed: the webhooks' registrations have one name in a cluster, and rights are limited by name. */}}
{{- define "rosey-monitor.serviceAccount" -}}
{{ .Values.serviceAccount.name | default "rosey-operator" }}
{{- end }}

{{- define "rosey-monitor.matchLabels" -}}
app.kubernetes.io/name: rosey-monitor
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "rosey-monitor.labels" -}}
app.kubernetes.io/name: rosey-monitor
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of an object that Prometheus selects by them: those of all monitors' objects, below its own. */}}
{{- define "rosey-monitor.selectedLabels" -}}
{{ include "rosey-monitor.labels" .root }}
{{- with merge (dict) .labels .root.Values.defaultObjectLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* An image's name: registry, repository, and tag or digest. */}}
{{- define "rosey-monitor.image" -}}
{{- with .root.Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* What images of exporters must begin with: what is written, else the folder of the exporter's own image. */}}
{{- define "rosey-monitor.imagePrefixes" -}}
{{- if .Values.exporter.imagePrefixes -}}
{{ join "," .Values.exporter.imagePrefixes }}
{{- else -}}
{{- with .Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- with dir .Values.exporter.image.repository }}{{ if ne . "." }}{{ . }}/{{ end }}{{ end -}}
{{- end -}}
{{- end }}

{{- /* Whether roles of the whole cluster are made; else one in each namespace that is watched. */}}
{{- define "rosey-monitor.everywhere" -}}
{{- if not .Values.watchNamespaces }}true{{ end }}
{{- end }}
