{{/* Names, labels, the configuration, and values derived from the projects. */}}
{{- define "scm-gateway.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name .Release.Name) }}{{ $name = printf "%s-%s" .Release.Name .Chart.Name }}{{ end -}}
{{- .Values.fullnameOverride | default $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "scm-gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scm-gateway.labels" -}}
{{ include "scm-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "scm-gateway.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Checks that the schema cannot express. */}}
{{- define "scm-gateway.check" -}}
{{- with .Values.shutdown -}}
{{- if gt (mul 2 .lameDuck) (int64 .drain) }}{{ fail "shutdown.lameDuck is more than half of shutdown.drain" }}{{ end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (gt (int64 .minReplicas) (int64 .maxReplicas)) }}{{ fail "autoscaling.minReplicas is more than maxReplicas" }}{{ end -}}
{{- end -}}
{{- $ids := list -}}
{{- range .Values.projects }}{{ $ids = append $ids .id }}{{ end -}}
{{- with .Values.defaultProject -}}
{{- if not (has . $ids) }}{{ fail "defaultProject must be one of projects[].id" }}{{ end -}}
{{- end -}}
{{- $rpcs := .Files.Get "files/methods.json" | fromJson -}}
{{- $enabled := .Values.config.server.methods | default list -}}
{{- range $key, $callers := dict "callers" .Values.callers "istio.callers" .Values.istio.callers -}}
{{- range $caller := $callers -}}
{{- range $name := $caller.methods -}}
{{- $rpc := get $rpcs $name -}}
{{- if and $rpc (not $rpc.words) (not (has $name $enabled)) -}}
{{ fail (printf "%s: %s has to be granted by name: add it to config.server.methods, too" $key $name) }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Port of a URL. */}}
{{- define "scm-gateway.port" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{/* Endpoints of the projects, as a JSON list of URLs. */}}
{{- define "scm-gateway.endpoints" -}}
{{- $endpoints := list -}}
{{- range .Values.projects -}}
{{- $from := or .endpoint .region | empty | ternary $.Values.config.upstream . -}}
{{- $region := printf "https://scm.%s.myhuaweicloud.com" ($from.region | default "cn-north-4") -}}
{{- $endpoints = append $endpoints ($from.endpoint | default $region) -}}
{{- end -}}
{{- $endpoints | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Paths of methods, as a JSON list. Takes a list of the root and the words. files/methods.json is generated from the protos. */}}
{{- define "scm-gateway.paths" -}}
{{- $rpcs := (index . 0).Files.Get "files/methods.json" | fromJson -}}
{{- $paths := list -}}
{{- range $word := index . 1 -}}
{{- range $name, $rpc := $rpcs -}}
{{- if or (eq $word $name) (has $word $rpc.words) }}{{ $paths = append $paths $rpc.path }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $paths | uniq | toJson -}}
{{- end -}}

{{/* Configuration of the gateway. JSON strings, numbers, booleans and lists are valid TOML. */}}
{{- define "scm-gateway.config" -}}
{{- with .Values.defaultProject }}
default_project = {{ . | toJson }}
{{- end }}

[server]
{{- if .Values.istio.identity }}
listen = "127.0.0.1:50051"
trust_xfcc = true
{{- else }}
listen = "0.0.0.0:50051"
plaintext = {{ not .Values.tls.enabled }}
{{- end }}
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
{{- range $key, $value := .Values.config.admin }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- with .Values.config.upstream }}

[upstream]
{{- range $key, $value := . }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- with .Values.config.watch }}

[watch]
{{- range $key, $value := . }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- range $index, $project := .Values.projects }}

[[projects]]
id = {{ $project.id | toJson }}
{{- with $project.domainId }}
domain_id = {{ . | toJson }}
{{- end }}
{{- with $project.endpoint }}
endpoint = {{ . | toJson }}
{{- end }}
{{- with $project.region }}
region = {{ . | toJson }}
{{- end }}
{{- if $project.existingSecret }}
ak_file = "/run/secrets/scm-gateway-{{ $index }}/ak"
sk_file = "/run/secrets/scm-gateway-{{ $index }}/sk"
{{- if $project.securityToken }}
security_token_file = "/run/secrets/scm-gateway-{{ $index }}/security-token"
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.callers }}

[[callers]]
identity = {{ .identity | toJson }}
methods = {{ .methods | toJson }}
projects = {{ .projects | toJson }}
{{- end }}
{{- if .Values.istio.identity }}
{{- range .Values.istio.callers }}

[[callers]]
identity = {{ printf "spiffe://%s" .principal | toJson }}
methods = {{ .methods | toJson }}
projects = ["*"]
{{- end }}
{{- end }}
{{- end -}}
