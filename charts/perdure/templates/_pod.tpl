{{/* The parts that pods of services, operator and jobs share. */}}

{{/* Restricted Pod Security. (user id) */}}
{{- define "perdure.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "perdure.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where and how pods run: (list $ component) */}}
{{- define "perdure.placement" -}}
{{- $v := (index . 0).Values -}}
{{- with $v.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $v.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if $v.topologySpreadConstraints }}
{{- toYaml $v.topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "perdure.selector" . | nindent 8 }}
{{- end }}
# Kubernetes' variables for services would be taken for settings: PERDURE_API_PORT=tcp://…
enableServiceLinks: false
{{- end -}}

{{/* A secret's value as a variable: (list variable name key) */}}
{{- define "perdure.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}}}
{{- end -}}

{{/* Where Pulsar is, for services, jobs and tests. */}}
{{- define "perdure.brokerEnv" -}}
{{- $v := .Values -}}
- {name: PERDURE_NAMESPACE, value: {{ $v.namespace | quote }}}
- {name: PERDURE_LOG_LEVEL, value: {{ $v.logLevel | quote }}}
- {name: PERDURE_PULSAR_URL, value: {{ include "perdure.pulsarUrl" . | quote }}}
- name: PERDURE_PULSAR_ADMIN_URL
{{- if $v.dev.enabled }}
  value: http://{{ include "perdure.fullname" . }}-pulsar.{{ .Release.Namespace }}.svc:8080
{{- else }}
  value: {{ $v.pulsar.adminUrl | quote }}
{{- end }}
- {name: PERDURE_PULSAR_TENANT, value: {{ $v.pulsar.tenant | quote }}}
{{- with $v.pulsar.listener }}
- {name: PERDURE_PULSAR_LISTENER, value: {{ . | quote }}}
{{- end }}
{{- with $v.pulsar.tokenSecret }}{{ if .name }}
{{ include "perdure.secretEnv" (list "PERDURE_PULSAR_TOKEN" .name .key) }}
{{- end }}{{ end }}
{{- with $v.pulsar.oauth2Secret }}{{ if .name }}
{{ include "perdure.secretEnv" (list "PERDURE_PULSAR_OAUTH2" .name .key) }}
{{- end }}{{ end }}
{{- with $v.pulsar.tls }}{{ if .secretName }}
- {name: PERDURE_PULSAR_TLS_CA, value: /etc/perdure/pulsar/ca.crt}
{{- if .authenticate }}
- {name: PERDURE_PULSAR_TLS_CERTIFICATE, value: /etc/perdure/pulsar/tls.crt}
- {name: PERDURE_PULSAR_TLS_KEY, value: /etc/perdure/pulsar/tls.key}
{{- end }}
{{- end }}{{ end }}
{{- end -}}

{{/* Where Cassandra is. */}}
{{- define "perdure.storeEnv" -}}
{{- $v := .Values -}}
- name: PERDURE_CASSANDRA_HOSTS
{{- if $v.dev.enabled }}
  value: {{ include "perdure.fullname" . }}-cassandra.{{ .Release.Namespace }}.svc
{{- else }}
  value: {{ join "," $v.cassandra.hosts | quote }}
{{- end }}
- {name: PERDURE_CASSANDRA_PORT, value: {{ ternary 9042 $v.cassandra.port $v.dev.enabled | quote }}}
- {name: PERDURE_CASSANDRA_DATACENTER, value: {{ $v.cassandra.datacenter | quote }}}
- {name: PERDURE_CASSANDRA_KEYSPACE, value: {{ $v.cassandra.keyspace | quote }}}
- {name: PERDURE_CASSANDRA_REPLICATION, value: {{ ternary 1 $v.cassandra.replication $v.dev.enabled | quote }}}
{{- with $v.cassandra.credentialsSecret }}{{ if .name }}
{{ include "perdure.secretEnv" (list "PERDURE_CASSANDRA_USERNAME" .name .usernameKey) }}
{{ include "perdure.secretEnv" (list "PERDURE_CASSANDRA_PASSWORD" .name .passwordKey) }}
{{- end }}{{ end }}
{{- with $v.cassandra.tls }}{{ if .secretName }}
- {name: PERDURE_CASSANDRA_TLS_CA, value: /etc/perdure/cassandra/ca.crt}
{{- if .authenticate }}
- {name: PERDURE_CASSANDRA_TLS_CERTIFICATE, value: /etc/perdure/cassandra/tls.crt}
- {name: PERDURE_CASSANDRA_TLS_KEY, value: /etc/perdure/cassandra/tls.key}
{{- end }}
{{- end }}{{ end }}
{{- end -}}

{{/* What the probes of every process look like. */}}
{{- define "perdure.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: probes}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: probes}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: probes}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- define "perdure.probesEnv" -}}
- name: PERDURE_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: PERDURE_PROBE_HOST, value: 0.0.0.0}
- {name: PERDURE_PROBE_PORT, value: "9464"}
- {name: PERDURE_GRACE_SECONDS, value: {{ .Values.graceSeconds | quote }}}
{{- end -}}

{{- define "perdure.envFrom" -}}
{{- with .Values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "perdure.volumeMounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- if .Values.pulsar.tls.secretName }}
  - {name: pulsar-tls, mountPath: /etc/perdure/pulsar, readOnly: true}
{{- end }}
{{- if .Values.cassandra.tls.secretName }}
  - {name: cassandra-tls, mountPath: /etc/perdure/cassandra, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "perdure.volumes" -}}
volumes:
  - {name: tmp, emptyDir: {}}
{{- with .Values.pulsar.tls.secretName }}
  - {name: pulsar-tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .Values.cassandra.tls.secretName }}
  - {name: cassandra-tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .Values.extraVolumes }}
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
