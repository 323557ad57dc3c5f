{{/* Names and labels that the objects share. */}}
{{- define "scm-gateway.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "scm-gateway.selector" -}}
app.kubernetes.io/name: scm-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scm-gateway.labels" -}}
{{ include "scm-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "scm-gateway.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The gateway's configuration. TOML takes JSON's strings, numbers, booleans and lists. */}}
{{- define "scm-gateway.config" -}}
{{- with .Values.defaultProject }}
default_project = {{ . | toJson }}
{{- end }}

[server]
listen = "0.0.0.0:50051"
plaintext = {{ not .Values.tls.enabled }}
drain = "{{ .Values.shutdown.drain }}s"
lame_duck = "{{ .Values.shutdown.lameDuck }}s"
{{- range $key, $value := .Values.config.server }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- if .Values.tls.enabled }}
[server.tls]
cert_file = "/run/secrets/scm-gateway-tls/tls.crt"
key_file = "/run/secrets/scm-gateway-tls/tls.key"
client_ca_file = "/run/secrets/scm-gateway-tls/ca.crt"
{{- end }}

[admin]
listen = "0.0.0.0:9464"
{{- with .Values.config.upstream }}

[upstream]
{{- range $key, $value := . }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- range $index, $project := .Values.projects }}

[[projects]]
id = {{ $project.id | toJson }}
{{- with $project.region }}
region = {{ . | toJson }}
{{- end }}
{{- with $project.endpoint }}
endpoint = {{ . | toJson }}
{{- end }}
ak_file = "/run/secrets/scm-gateway-{{ $index }}/ak"
sk_file = "/run/secrets/scm-gateway-{{ $index }}/sk"
{{- end }}
{{- range .Values.callers }}

[[callers]]
identity = {{ .identity | toJson }}
methods = {{ .methods | toJson }}
projects = {{ .projects | toJson }}
{{- end }}
{{- end -}}
