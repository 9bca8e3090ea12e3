{{- /* A full reference, else the tag that somebody gave, else the digest that the chart was released with, else the chart's version. */}}
{{- define "platform.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := printf "%s/%s" $images.registry (index $images.names .name) -}}
{{- $digest := get ($images.digests | default dict) .name -}}
{{- if get ($images.overrides | default dict) .name -}}
{{- get $images.overrides .name -}}
{{- else if and $digest (not $images.tag) -}}
{{- printf "%s@%s" $image $digest -}}
{{- else -}}
{{- printf "%s:%s" $image ($images.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{- define "platform.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Without the version: a trial store's Pod is not made anew, without a volume with no data, where nothing of it has changed. */}}
{{- define "platform.storePodLabels" -}}
app.kubernetes.io/name: fraud-platform
{{ include "platform.selector" . }}
app.kubernetes.io/part-of: fraud-platform
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "platform.labels" -}}
{{ include "platform.storePodLabels" . }}
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

{{- define "platform.scheduling" -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" }}
{{- with index $ $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{- define "platform.budget" -}}
{{- with .budget }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $.root.Release.Name }}-{{ $.component }}
  labels: {{- include "platform.labels" $ | nindent 4 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  selector:
    matchLabels: {{- include "platform.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{- /* What the operator's Pod makes in the Secret <release>-stores where it isn't there yet: one line a password. */}}
{{- define "platform.passwords" -}}
{{- $keys := list }}
{{- if .Values.trial.redis.enabled }}{{ $keys = append $keys "REDIS_PASSWORD" }}{{ end }}
{{- if .Values.trial.postgres.enabled }}{{ $keys = append $keys "POSTGRES_PASSWORD" }}{{ end }}
{{- if .Values.trial.mlflow.enabled }}{{ $keys = concat $keys (list "MLFLOW_PASSWORD" "MLFLOW_SESSION_KEY") }}{{ end }}
{{- if include "platform.trialBucket" . }}{{ $keys = append $keys "OBJECTS_PASSWORD" }}{{ end }}
{{- join ", " $keys }}
{{- end }}

{{- /* The trial stores that speak TLS, with their host names: what the operator's Pod makes certificates for. */}}
{{- define "platform.servers" -}}
{{- $servers := dict }}
{{- $domain := printf "%s.svc" .Release.Namespace }}
{{- if .Values.trial.redis.enabled }}{{ $_ := set $servers "REDIS" (list (printf "%s-redis.%s" .Release.Name $domain)) }}{{ end }}
{{- if .Values.trial.postgres.enabled }}{{ $_ := set $servers "POSTGRES" (list (printf "%s-postgres.%s" .Release.Name $domain)) }}{{ end }}
{{- $servers | toJson }}
{{- end }}

{{- /* A trial server's password, and its certificate with the key, as files: the server waits for them, and reads them again when they change. */}}
{{- define "platform.serverVolume" -}}
- name: own
  secret:
    secretName: {{ .root.Release.Name }}-stores
    defaultMode: 0440
    items:
    - {key: {{ .server }}_PASSWORD, path: password}
    - {key: {{ .server }}_TLS_CERT, path: tls.crt}
    - {key: {{ .server }}_TLS_KEY, path: tls.key}
{{- end }}

{{- /* The stores' addresses, for the operator. A password comes out of the Secret when the container starts. */}}
{{- define "platform.storesEnv" -}}
{{- $own := printf "%s-stores" .Release.Name }}
{{- if .Values.stores.existingSecret }}
{{- range list "REDIS_URL" "POSTGRES_DSN" "MLFLOW_TRACKING_URI" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.stores.existingSecret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- range $variable, $key := dict "REDIS_CA_CERT" "REDIS_URL.CA_CERT" "POSTGRES_CA_CERT" "POSTGRES_DSN.CA_CERT" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.stores.existingSecret }}, key: {{ $key }}, optional: true}}
{{- end }}
{{- else }}
{{- if .Values.stores.redisUrl }}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: REDIS_URL}}
{{- else if .Values.trial.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: REDIS_PASSWORD}}
- {name: REDIS_URL, value: "rediss://:$(REDIS_PASSWORD)@{{ .Release.Name }}-redis.{{ .Release.Namespace }}.svc:6379/0"}
- name: REDIS_CA_CERT
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: CA_CERT}}
{{- end }}
{{- if .Values.stores.postgresDsn }}
- name: POSTGRES_DSN
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: POSTGRES_DSN}}
{{- else if .Values.trial.postgres.enabled }}
- name: POSTGRES_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: POSTGRES_PASSWORD}}
- {name: POSTGRES_DSN, value: "postgresql://fraud:$(POSTGRES_PASSWORD)@{{ .Release.Name }}-postgres.{{ .Release.Namespace }}.svc:5432/postgres?sslmode=verify-full"}
- name: POSTGRES_CA_CERT
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: CA_CERT}}
{{- end }}
{{- if .Values.stores.mlflowTrackingUri }}
- name: MLFLOW_TRACKING_URI
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: MLFLOW_TRACKING_URI}}
{{- else if .Values.trial.mlflow.enabled }}
- name: MLFLOW_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $own }}, key: MLFLOW_PASSWORD}}
- {name: MLFLOW_TRACKING_URI, value: "http://fraud:$(MLFLOW_PASSWORD)@{{ .Release.Name }}-mlflow.{{ .Release.Namespace }}.svc:5000"}
{{- end }}
{{- end }}
{{- end }}

{{- /* The stores' hosts, of addresses that are plain URLs, and nothing of any other: by a digest of a password, which more people see
than the password, it could be guessed. */}}
{{- define "platform.storeHosts" -}}
{{- $url := "^[a-z+]+://(?:[^/?#@]*@)?((?:[^/?#@:,]+(?::[0-9]+)?,?)+)(?:[/?#][^@]*)?$" }}
{{- range list .Values.stores.redisUrl .Values.stores.postgresDsn .Values.stores.mlflowTrackingUri }}
{{- if and . (regexMatch $url .) }}{{ regexReplaceAll $url . "${1}" }}{{ end }};
{{- end }}
{{- end }}

{{- /* Of managed Kafka: its own values, else those of the trial stores. */}}
{{- define "platform.kafkaStorage" -}}
{{- $own := .Values.kafka.persistence }}
{{- $enabled := kindIs "invalid" $own.enabled | ternary .Values.persistence.enabled $own.enabled }}
{{- $class := kindIs "invalid" $own.storageClass | ternary .Values.persistence.storageClass $own.storageClass }}
{{- dict "ephemeral" (not $enabled) "storage_class" ($class | default nil) | toJson }}
{{- end }}

{{- /* A volume of a class that isn't there would wait for ever. A class without StorageClass is right where somebody made
volumes of that name by hand. */}}
{{- define "platform.checkStorageClass" -}}
{{- $classes := lookup "storage.k8s.io/v1" "StorageClass" "" "" }}
{{- if hasKey $classes "items" }}
{{- $names := list }}
{{- $default := false }}
{{- range $classes.items }}
{{- $names = append $names .metadata.name }}
{{- $default = or $default (eq "true" (get (.metadata.annotations | default dict) "storageclass.kubernetes.io/is-default-class")) }}
{{- end }}
{{- $there := join ", " $names | default "none" }}
{{- if .class }}
{{- $class := .class }}
{{- $byHand := false }}
{{- range (lookup "v1" "PersistentVolume" "" "").items }}
{{- $byHand = or $byHand (eq $class (.spec.storageClassName | default "")) }}
{{- end }}
{{- if not (or $byHand (has $class $names)) }}
{{- fail (printf "\n\n%s: the cluster has no StorageClass %s and no volume of that class; there are: %s\n" .value $class $there) }}
{{- end }}
{{- else if not $default }}
{{- fail (printf "\n\n%s: the cluster has no default StorageClass, so name one; there are: %s\n" .value $there) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Not empty where the chart brings the bucket of storage.uri itself: then it is the bucket's name. */}}
{{- define "platform.trialBucket" -}}
{{- $storage := .Values.storage }}
{{- if and .Values.trial.objects.enabled (hasPrefix "s3://" $storage.uri) (not $storage.existingSecret) (not $storage.serviceAccountAnnotations) -}}
{{- regexFind "^[^/]+" (trimPrefix "s3://" $storage.uri) -}}
{{- end -}}
{{- end }}

{{- /* What the trial's object store calls its one user. */}}
{{- define "platform.trialAccessKey" -}}
fraud
{{- end }}

{{- /* Of a Secret with an object store's keys: those that it must have, and all. */}}
{{- define "platform.requiredStorageKeys" -}}
AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
{{- end }}

{{- define "platform.storageKeys" -}}
{{ include "platform.requiredStorageKeys" . }} AWS_REGION AWS_ENDPOINT_URL
{{- end }}

{{- /* Keys of the platform's object store, under AWS's names behind a prefix; none where a role opens it. */}}
{{- define "platform.storageEnv" -}}
{{- $root := .root }}
{{- $prefix := .prefix }}
{{- if $root.Values.storage.existingSecret }}
{{- range include "platform.storageKeys" . | splitList " " }}
- name: {{ $prefix }}{{ . }}
  valueFrom: {secretKeyRef: {name: {{ $root.Values.storage.existingSecret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- else if include "platform.trialBucket" $root }}
- {name: {{ $prefix }}AWS_ACCESS_KEY_ID, value: {{ include "platform.trialAccessKey" . }}}
- name: {{ $prefix }}AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $root.Release.Name }}-stores, key: OBJECTS_PASSWORD}}
- {name: {{ $prefix }}AWS_REGION, value: us-east-1}
- {name: {{ $prefix }}AWS_ENDPOINT_URL, value: "http://{{ $root.Release.Name }}-objects.{{ $root.Release.Namespace }}.svc:9000"}
{{- end }}
{{- end }}

{{- define "platform.checkStorage" -}}
{{- $storage := .Values.storage }}
{{- if hasPrefix "file://" $storage.uri }}
{{- $root := $storage.nodeFolder.root }}
{{- if not $storage.nodeFolder.enabled }}
{{- fail (printf "\n\nstorage.uri: %s is a folder of one node: write s3://bucket/folder, or set storage.nodeFolder.enabled=true on a cluster of one node\n" $storage.uri) }}
{{- end }}
{{- $folder := clean (trimPrefix "file://" $storage.uri) }}
{{- if not (hasPrefix (printf "%s/" $root) (printf "%s/" $folder)) }}
{{- fail (printf "\n\nstorage.uri: %s must be storage.nodeFolder.root, %s, or lie below it\n" $storage.uri $root) }}
{{- end }}
{{- end }}
{{- /* Nothing is known of the cluster where helm only renders. */}}
{{- $secrets := lookup "v1" "Secret" .Release.Namespace "" }}
{{- if and $storage.existingSecret (hasKey $secrets "items") }}
{{- $data := (lookup "v1" "Secret" .Release.Namespace $storage.existingSecret).data | default dict }}
{{- range include "platform.requiredStorageKeys" . | splitList " " }}
{{- if not (index $data .) }}
{{- fail (printf "\n\nstorage.existingSecret: Secret %s in %s isn't there or lacks %s: make it first\n" $storage.existingSecret $.Release.Namespace .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What these values would take away from detectors that are there: what they keep, and the operator that lets them go. */}}
{{- define "platform.checkDetectors" -}}
{{- $detectors := list }}
{{- range .Values.clusterScoped.enabled | ternary (list "") .Values.operator.watchNamespaces }}
{{- $detectors = concat $detectors ((lookup "fraudplatform.dev/v1alpha1" "FraudDetector" . "").items | default list) }}
{{- end }}
{{- $store := printf "%s-objects" .Release.Name }}
{{- $keeping := list }}
{{- $left := list }}
{{- range $detectors }}
{{- $name := printf "%s/%s" .metadata.namespace .metadata.name }}
{{- $keeping = append $keeping $name }}
{{- if and .metadata.finalizers $.Values.operator.watchNamespaces (not (has .metadata.namespace $.Values.operator.watchNamespaces)) }}
{{- $left = append $left $name }}
{{- end }}
{{- end }}
{{- if and $keeping (not (include "platform.trialBucket" .)) (lookup "apps/v1" "Deployment" .Release.Namespace $store) }}
{{- fail (printf "\n\nstorage, trial.objects.enabled: these values take the trial's object store %s away, with what detectors keep in it. Give the values that it was installed with, or delete the detectors first: %s\n" $store (join ", " $keeping)) }}
{{- end }}
{{- if $left }}
{{- fail (printf "\n\noperator.watchNamespaces: nobody would look after these detectors, nor let them be deleted: %s. Name their namespaces, too, or delete them first\n" (join ", " $left)) }}
{{- end }}
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

{{- /* What the Pods of helm's hooks have in common: the operator's image and place. */}}
{{- define "platform.toolPod" -}}
{{- include "platform.pull" . }}
enableServiceLinks: false
securityContext: {{- include "platform.podSecurity" (dict "user" 1000) | nindent 2 }}
{{- include "platform.scheduling" .Values.operator }}
volumes:
- {name: tmp, emptyDir: {}}
{{- end }}

{{- define "platform.toolContainer" -}}
image: {{ include "platform.image" (dict "root" . "name" "operator") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
env:
- {name: HOME, value: /tmp}
resources: {{- toYaml .Values.operator.resources | nindent 2 }}
securityContext: {{- include "platform.containerSecurity" . | nindent 2 }}
volumeMounts:
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- /* Whom a line of files/ways.yaml names, as a NetworkPolicy's peers; nothing where there is nobody. */}}
{{- define "platform.peers" -}}
{{- $components := .way.components }}
{{- if has "UPLOAD" .way.outside }}{{ $components = append $components "upload" }}{{ end }}
{{- with $components }}
- namespaceSelector:
  {{- with $.root.Values.operator.watchNamespaces }}
    matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
  {{- else }} {}
  {{- end }}
  podSelector:
    matchExpressions:
    - {key: fraudplatform.dev/detector, operator: Exists}
    - {key: app.kubernetes.io/component, operator: In, values: {{ toJson . }}}
{{- end }}
{{- range .way.parts }}
- podSelector:
    matchLabels: {{- include "platform.selector" (dict "root" $.root "component" .) | nindent 6 }}
{{- end }}
{{- if and (has "MONITORING" .way.outside) .root.Values.monitoring.namespace }}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .root.Values.monitoring.namespace }}}
{{- end }}
{{- end }}
