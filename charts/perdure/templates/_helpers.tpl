{{- define "perdure.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "perdure.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "perdure.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "perdure.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select: (list $ component) */}}
{{- define "perdure.selector" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: {{ include "perdure.name" $top }}
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object: (list $ component) */}}
{{- define "perdure.labels" -}}
{{- $top := index . 0 -}}
{{ include "perdure.selector" . }}
app.kubernetes.io/part-of: perdure
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $top.Chart.Name $top.Chart.Version | replace "+" "_" }}
{{- with $top.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (list $ name) */}}
{{- define "perdure.image" -}}
{{- $top := index . 0 -}}
{{- $usual := printf "%s/%s:%s" $top.Values.image.prefix (index . 1) (default $top.Chart.AppVersion $top.Values.image.tag) -}}
{{- get $top.Values.image.overrides (index . 1) | default $usual -}}
{{- end -}}

{{- define "perdure.pulsarUrl" -}}
{{- if .Values.dev.enabled -}}
pulsar://{{ include "perdure.fullname" . }}-pulsar.{{ .Release.Namespace }}.svc:6650
{{- else -}}
{{ .Values.pulsar.url }}
{{- end -}}
{{- end -}}

{{- define "perdure.apiUrl" -}}
http://{{ include "perdure.fullname" . }}-api.{{ .Release.Namespace }}.svc:{{ .Values.api.service.port }}
{{- end -}}

{{- define "perdure.tokenSecret" -}}
{{- default (printf "%s-api-token" (include "perdure.fullname" .)) .Values.api.existingSecret.name -}}
{{- end -}}

{{/* What makes no sense is refused, with what to do instead. */}}
{{- define "perdure.validate" -}}
{{- $v := .Values -}}
{{- if and $v.dev.enabled (or $v.pulsar.url $v.cassandra.hosts) -}}
{{- fail "dev.enabled brings a Pulsar and a Cassandra of its own: leave out pulsar.url and cassandra.hosts, or dev.enabled" -}}
{{- end -}}
{{- if not $v.dev.enabled -}}
{{- if not (and $v.pulsar.url $v.pulsar.adminUrl) -}}
{{- fail "pulsar.url and pulsar.adminUrl must say where your Pulsar is; to try Perdure without one, set dev.enabled=true" -}}
{{- end -}}
{{- if not $v.cassandra.hosts -}}
{{- fail "cassandra.hosts must say where your Cassandra is; to try Perdure without one, set dev.enabled=true" -}}
{{- end -}}
{{- end -}}
{{- if and $v.api.ingress.enabled (not $v.api.ingress.host) -}}
{{- fail "api.ingress.enabled needs api.ingress.host" -}}
{{- end -}}
{{- if and $v.api.httpRoute.enabled (not $v.api.httpRoute.parentRefs) -}}
{{- fail "api.httpRoute.enabled needs api.httpRoute.parentRefs: the gateways to attach to" -}}
{{- end -}}
{{- end -}}
