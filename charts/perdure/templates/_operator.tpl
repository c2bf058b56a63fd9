{{/* What the operator may do where it looks after resources: as operator/rbac.yaml says, but for secrets, which are
named one by one. */}}
{{- define "perdure.operatorRules" -}}
- {apiGroups: [perdure.dev], resources: [workers, workflows, connections], verbs: [get, list, watch]}
- {apiGroups: [perdure.dev], resources: [workers/status, workflows/status], verbs: [patch]}
- {apiGroups: [perdure.dev], resources: [workers/finalizers, workflows/finalizers], verbs: [update]}
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [serviceaccounts], verbs: [get, create, patch]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, create, patch]}
{{- if .Values.operator.keda.enabled }}
- {apiGroups: [keda.sh], resources: [scaledobjects, triggerauthentications], verbs: [get, create, patch, delete]}
- {apiGroups: [perdure.dev], resources: [workers/scale, workflows/scale], verbs: [patch]}
{{- end }}
{{- with .Values.operator.secretNames }}
- {apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: {{ toJson . }}}
{{- end }}
{{- end -}}
