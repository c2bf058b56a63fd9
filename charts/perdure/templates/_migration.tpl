{{/* The pod that makes topics and tables. */}}
{{- define "perdure.migrationPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
securityContext: {{- include "perdure.podSecurity" 65532 | nindent 2 }}
{{ include "perdure.placement" (list . "migration") }}
containers:
  - name: migrate
    image: {{ include "perdure.image" (list . "worker") }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    securityContext: {{- include "perdure.containerSecurity" . | nindent 6 }}
    command: [/bin/sh, -c]
    # 5: the server does not answer yet, which is no failure of the migration.
    args:
      - |
        for verb in init migrate; do
          until perdure admin $verb; do
            code=$?
            [ $code -eq 5 ] || exit $code
            sleep 2
          done
        done
    env:
      {{- include "perdure.brokerEnv" . | nindent 6 }}
      {{- include "perdure.storeEnv" . | nindent 6 }}
      {{- with .Values.extraEnv }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- include "perdure.envFrom" . | nindent 4 }}
    resources: {{- toYaml .Values.migration.resources | nindent 6 }}
    {{- include "perdure.volumeMounts" . | nindent 4 }}
{{ include "perdure.volumes" . }}
{{- end -}}
