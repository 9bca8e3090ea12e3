{{- define "platform.image" -}}
{{- $images := .root.Values.images -}}
{{- get ($images.overrides | default dict) .name | default (printf "%s/%s:%s" $images.registry (index $images.names .name) $images.tag) -}}
{{- end }}

{{- define "platform.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "platform.labels" -}}
app.kubernetes.io/name: fraud-platform
{{ include "platform.selector" . }}
app.kubernetes.io/part-of: fraud-platform
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- define "platform.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "platform.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "platform.pull" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "platform.storesSecret" -}}
{{- .Values.stores.existingSecret | default (printf "%s-stores" .Release.Name) -}}
{{- end }}

{{- define "platform.mlflowUri" -}}
{{- if .Values.stores.mlflowTrackingUri -}}
{{- .Values.stores.mlflowTrackingUri -}}
{{- else if .Values.trial.mlflow.enabled -}}
{{- printf "http://%s-mlflow.%s.svc:5000" .Release.Name .Release.Namespace -}}
{{- end -}}
{{- end }}

{{- define "platform.prometheusUrl" -}}
{{- if .Values.prometheus.url -}}
{{- .Values.prometheus.url -}}
{{- else if .Values.trial.prometheus.enabled -}}
{{- printf "http://%s-prometheus.%s.svc:9090" .Release.Name .Release.Namespace -}}
{{- end -}}
{{- end }}

{{- define "platform.dataVolume" -}}
{{- if .root.Values.persistence.enabled }}
- name: data
  persistentVolumeClaim:
    claimName: {{ .root.Release.Name }}-{{ .component }}
{{- else }}
- name: data
  emptyDir: {}
{{- end }}
{{- end }}

{{- define "platform.claim" -}}
{{- if .root.Values.persistence.enabled }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  labels: {{- include "platform.labels" . | nindent 4 }}
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .root.Values.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .root.Values.persistence.size }}}}
{{- end }}
{{- end }}

{{- define "platform.service" -}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  labels: {{- include "platform.labels" . | nindent 4 }}
spec:
  selector: {{- include "platform.selector" . | nindent 4 }}
  ports:
  - {name: {{ .portName }}, port: {{ .port }}, targetPort: {{ .portName }}, protocol: TCP}
{{- end }}
