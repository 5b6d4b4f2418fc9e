{{- define "locktender.selector" -}}
app.kubernetes.io/name: locktender
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "locktender.labels" -}}
{{ include "locktender.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* Objects of the cluster as a whole are told apart by namespace: two installations do not share them. */ -}}
{{- define "locktender.clusterName" -}}
{{- if eq .Release.Namespace "locktender" -}}locktender{{- else -}}locktender-{{ .Release.Namespace }}{{- end -}}
{{- end -}}

{{- define "locktender.account" -}}
kind: ServiceAccount
name: {{ .Values.serviceAccount.name }}
namespace: {{ .Release.Namespace }}
{{- end -}}
