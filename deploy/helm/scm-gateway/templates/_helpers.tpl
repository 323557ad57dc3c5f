{{/* Names, labels, the configuration, and values derived from the projects. */}}
{{- define "scm-gateway.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name .Release.Name) }}{{ $name = printf "%s-%s" .Release.Name .Chart.Name }}{{ end -}}
{{- .Values.fullnameOverride | default $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "scm-gateway.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "scm-gateway.name" .) -}}
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
{{- include "scm-gateway.checkSources" . -}}
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

{{/* Checks that each project has one source of credentials, and that this source is complete. */}}
{{- define "scm-gateway.checkSources" -}}
{{- range $index, $project := .Values.projects -}}
{{- $here := printf "projects[%d]" $index -}}
{{- $oidc := $project.oidc | default dict -}}
{{- $pod := $project.podIdentity | default dict -}}
{{- $sources := list -}}
{{- if $project.existingSecret }}{{ $sources = append $sources "existingSecret" }}{{ end -}}
{{- if or $oidc.providerUrn $oidc.agencyUrn $oidc.audience $oidc.sessionName $oidc.duration $oidc.policy $oidc.policyIds }}{{ $sources = append $sources "oidc" }}{{ end -}}
{{- if $pod.enabled }}{{ $sources = append $sources "podIdentity" }}{{ end -}}
{{- if gt (len $sources) 1 -}}
{{ fail (printf "%s: %s exclude each other, because a project has one source of credentials" $here (join " and " $sources)) }}
{{- end -}}
{{- if not (or $sources $.Values.config.upstream.metadata_endpoint) -}}
{{ fail (printf "%s has no source of credentials: set existingSecret, oidc, podIdentity.enabled, or config.upstream.metadata_endpoint" $here) }}
{{- end -}}
{{- if has "oidc" $sources -}}
{{- if not (and $oidc.providerUrn $oidc.agencyUrn $oidc.audience) -}}
{{ fail (printf "%s.oidc needs providerUrn, agencyUrn and audience" $here) }}
{{- end -}}
{{- if not (include "scm-gateway.stsEndpoint" (list $ $project)) -}}
{{ fail (printf "%s.oidc needs config.upstream.sts_endpoint, because the project has no region with STS" $here) }}
{{- end -}}
{{- end -}}
{{- if and (not $pod.enabled) (or $pod.credentialsFullUri $pod.authorizationTokenFile $pod.plainHttpHost) -}}
{{ fail (printf "%s.podIdentity needs enabled: true" $here) }}
{{- end -}}
{{- if and $pod.enabled (not $pod.credentialsFullUri) $.Values.config.upstream.metadata_endpoint -}}
{{ fail (printf "%s.podIdentity excludes config.upstream.metadata_endpoint, because a pod without HC_CONTAINER_* variables would get the agency of its node" $here) }}
{{- end -}}
{{- if $pod.enabled -}}
{{- if ne (empty $pod.credentialsFullUri) (empty $pod.authorizationTokenFile) -}}
{{ fail (printf "%s.podIdentity: credentialsFullUri and authorizationTokenFile need each other" $here) }}
{{- end -}}
{{- if and $pod.plainHttpHost (not $pod.credentialsFullUri) -}}
{{ fail (printf "%s.podIdentity: plainHttpHost needs credentialsFullUri" $here) }}
{{- end -}}
{{- if and (not $pod.credentialsFullUri) (gt (len $.Values.projects) 1) -}}
{{ fail (printf "%s.podIdentity needs credentialsFullUri and authorizationTokenFile, because the HC_CONTAINER_* variables serve only one project" $here) }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Port of a URL. */}}
{{- define "scm-gateway.port" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{/* Region of a project, empty if it has an endpoint. Takes a list of the root and the project. */}}
{{- define "scm-gateway.region" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- $from := or .endpoint .region | empty | ternary $root.Values.config.upstream . -}}
{{- if not $from.endpoint }}{{ $from.region | default "cn-north-4" }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Endpoint of STS for a project, empty if it has to be configured. Takes a list of the root and the project. */}}
{{- define "scm-gateway.stsEndpoint" -}}
{{- $region := include "scm-gateway.region" . -}}
{{- $default := has $region (list "cn-north-4" "ap-southeast-1") | ternary (printf "https://sts.%s.myhuaweicloud.com" $region) "" -}}
{{- (index . 0).Values.config.upstream.sts_endpoint | default $default -}}
{{- end -}}

{{/* Endpoints of the projects and of their STS, as a JSON list of URLs. */}}
{{- define "scm-gateway.endpoints" -}}
{{- $endpoints := list -}}
{{- range .Values.projects -}}
{{- $region := include "scm-gateway.region" (list $ .) -}}
{{- $endpoint := .endpoint | default $.Values.config.upstream.endpoint -}}
{{- $endpoints = append $endpoints (empty $region | ternary $endpoint (printf "https://scm.%s.myhuaweicloud.com" $region)) -}}
{{- if (.oidc | default dict).providerUrn }}{{ $endpoints = append $endpoints (include "scm-gateway.stsEndpoint" (list $ .)) }}{{ end -}}
{{- end -}}
{{- $endpoints | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Tokens for OIDC, each once, as a JSON list of JSON objects. Projects with equal tokens share a file, so that the gateway
     can share their exchange. */}}
{{- define "scm-gateway.tokens" -}}
{{- $tokens := list -}}
{{- range .Values.projects -}}
{{- with .oidc -}}
{{- if .audience }}{{ $tokens = append $tokens (include "scm-gateway.token" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $tokens | uniq | toJson -}}
{{- end -}}

{{/* Token of an oidc section, as a JSON object. */}}
{{- define "scm-gateway.token" -}}
{{- dict "audience" .audience "expirationSeconds" (.expirationSeconds | default 3600 | int64) | toJson -}}
{{- end -}}

{{/* Whether the only project uses the HC_CONTAINER_* variables of the pod: "true" or empty. */}}
{{- define "scm-gateway.podIdentityVariables" -}}
{{- $pod := (first .Values.projects).podIdentity | default dict -}}
{{- if and $pod.enabled (not $pod.credentialsFullUri) }}true{{ end -}}
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
{{- /* The gateway reads the variables of pod identity only if no project is listed. */}}
{{- $tokens := include "scm-gateway.tokens" . | fromJsonArray }}
{{- range $index, $project := include "scm-gateway.podIdentityVariables" . | empty | ternary .Values.projects list }}

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
{{- with $project.oidc }}
{{- if .providerUrn }}

[projects.oidc]
provider_urn = {{ .providerUrn | toJson }}
agency_urn = {{ .agencyUrn | toJson }}
{{- $own := include "scm-gateway.token" . }}
{{- range $number, $token := $tokens }}
{{- if eq $token $own }}
token_file = "/run/secrets/scm-gateway-tokens/token-{{ $number }}"
{{- end }}
{{- end }}
{{- range $key, $value := dict "session_name" .sessionName "duration" .duration "policy" .policy "policy_ids" .policyIds }}
{{- with $value }}
{{ $key }} = {{ . | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with $project.podIdentity }}
{{- if .enabled }}

[projects.pod_identity]
credentials_full_uri = {{ .credentialsFullUri | toJson }}
authorization_token_file = {{ .authorizationTokenFile | toJson }}
{{- with .plainHttpHost }}
plain_http_host = {{ . | toJson }}
{{- end }}
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
