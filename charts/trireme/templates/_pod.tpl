{{/* What the pods of coordinators and workers share. */}}

{{/* A pool's values as YAML: the entry over `worker`. (dict "root" $ "name" "llm") */}}
{{- define "trireme.pool" -}}
{{- mustMergeOverwrite (deepCopy .root.Values.worker) (deepCopy (default (dict) (index .root.Values.pools .name))) | toYaml -}}
{{- end -}}

{{/* A Deployment rolls when its configuration or an own secret changes. */}}
{{- define "trireme.checksums" -}}
checksum/config: {{ toYaml .Values.config | sha256sum }}
{{- $own := list .Values.amqp.url .Values.redis.url }}
{{- range tuple "rabbitmq" "redis" }}
{{- if (index $.Values.bundled .).enabled }}
{{- $own = append $own (include "trireme.bundledPassword" (dict "root" $ "service" .)) }}
{{- end }}
{{- end }}
checksum/addresses: {{ join "\n" $own | sha256sum }}
{{- end -}}

{{- define "trireme.podSecurity" -}}
runAsNonRoot: true
{{- range tuple "runAsUser" "runAsGroup" "fsGroup" }}
{{- $id := index $.Values.security . }}
{{- if not (kindIs "invalid" $id) }}
{{ . }}: {{ int $id }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "trireme.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Of a pod's spec: who it is and where it goes. (dict "root" $ "values" … "selector" …) */}}
{{- define "trireme.podPlace" -}}
serviceAccountName: {{ include "trireme.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "trireme.podSecurity" .root | nindent 2 }}
terminationGracePeriodSeconds: {{ int .values.terminationGracePeriodSeconds }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- $.selector | nindent 8 }}
    # or the old pods of an upgrade count against the new ones
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* Of a container: environment. (dict "root" $ "values" … "env" "YAML of further variables") */}}
{{- define "trireme.environment" -}}
env:
  - name: TRIREME_CONFIG
    value: /etc/trireme/config/{{ .root.Values.existingConfig.key }}
  - name: TRIREME_LOG
    value: {{ .root.Values.log.filter | quote }}
  {{- range tuple "amqp" "redis" }}
  - name: TRIREME__{{ upper . }}__URL
    valueFrom:
      secretKeyRef:
        {{- include "trireme.address" (dict "root" $.root "service" .) | nindent 8 }}
  {{- $tls := (index $.root.Values .).tls }}
  {{- if $tls.caSecret.name }}
  - name: TRIREME__{{ upper . }}__CA_FILE
    value: /etc/trireme/tls/{{ . }}/ca/{{ $tls.caSecret.key }}
  {{- end }}
  {{- if $tls.clientSecret }}
  - name: TRIREME__{{ upper . }}__CERT_FILE
    value: /etc/trireme/tls/{{ . }}/client/tls.crt
  - name: TRIREME__{{ upper . }}__KEY_FILE
    value: /etc/trireme/tls/{{ . }}/client/tls.key
  {{- end }}
  {{- end }}
  - name: TRIREME__REDIS__PREFIX
    value: {{ .root.Values.redis.prefix | quote }}
  {{- $telemetry := .root.Values.telemetry }}
  {{- if $telemetry.otlp.endpoint }}
  - name: TRIREME__TELEMETRY__OTLP__ENDPOINT
    value: {{ $telemetry.otlp.endpoint | quote }}
  {{- if not (kindIs "invalid" $telemetry.otlp.ratio) }}
  - name: TRIREME__TELEMETRY__OTLP__RATIO
    value: {{ $telemetry.otlp.ratio | quote }}
  {{- end }}
  {{- if not (kindIs "invalid" $telemetry.otlp.perSecond) }}
  - name: TRIREME__TELEMETRY__OTLP__PER_SECOND
    value: {{ int64 $telemetry.otlp.perSecond | quote }}
  {{- end }}
  {{- if $telemetry.otlp.headersSecret.name }}
  - name: OTEL_EXPORTER_OTLP_HEADERS
    valueFrom:
      secretKeyRef: {name: {{ $telemetry.otlp.headersSecret.name }}, key: {{ $telemetry.otlp.headersSecret.key }}}
  {{- end }}
  {{- if $telemetry.content }}
  - name: TRIREME__TELEMETRY__CONTENT
    value: "true"
  {{- end }}
  {{- end }}
  {{- with .env }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .root.Values.providers.existingSecret .values.extraEnvFrom }}
envFrom:
  {{- with .root.Values.providers.existingSecret }}
  - secretRef:
      name: {{ . }}
  {{- end }}
  {{- with .values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "trireme.mounts" -}}
volumeMounts:
  - name: config
    mountPath: /etc/trireme/config
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- range tuple "amqp" "redis" }}
  {{- $tls := (index $.root.Values .).tls }}
  {{- if $tls.caSecret.name }}
  - name: {{ . }}-ca
    mountPath: /etc/trireme/tls/{{ . }}/ca
    readOnly: true
  {{- end }}
  {{- if $tls.clientSecret }}
  - name: {{ . }}-client
    mountPath: /etc/trireme/tls/{{ . }}/client
    readOnly: true
  {{- end }}
  {{- end }}
  {{- with .mounts }}
  {{- . | trim | nindent 2 }}
  {{- end }}
  {{- with .values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "trireme.volumes" -}}
volumes:
  - name: config
    {{- if .root.Values.existingConfig.name }}
    secret:
      secretName: {{ .root.Values.existingConfig.name }}
    {{- else }}
    configMap:
      name: {{ include "trireme.fullname" .root }}-config
    {{- end }}
  # MCP servers that a tool starts may want it
  - name: tmp
    emptyDir:
      sizeLimit: 64Mi
  {{- range tuple "amqp" "redis" }}
  {{- $tls := (index $.root.Values .).tls }}
  {{- if $tls.caSecret.name }}
  - name: {{ . }}-ca
    secret:
      secretName: {{ $tls.caSecret.name }}
  {{- end }}
  {{- if $tls.clientSecret }}
  - name: {{ . }}-client
    secret:
      secretName: {{ $tls.clientSecret }}
  {{- end }}
  {{- end }}
  {{- with .volumes }}
  {{- . | trim | nindent 2 }}
  {{- end }}
  {{- with .values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "trireme.probes" -}}
{{- $probes := .values.probes -}}
{{- $scheme := "" -}}
{{- if (.values.tls | default dict).secret }}{{ $scheme = ", scheme: HTTPS" }}{{ end -}}
startupProbe:
  httpGet: {path: /healthz, port: http{{ $scheme }}}
  periodSeconds: 2
  timeoutSeconds: {{ int $probes.timeoutSeconds }}
  failureThreshold: {{ div (add (int $probes.startupSeconds) 1) 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: http{{ $scheme }}}
  periodSeconds: {{ int $probes.periodSeconds }}
  timeoutSeconds: {{ int $probes.timeoutSeconds }}
  failureThreshold: {{ int $probes.failureThreshold }}
livenessProbe:
  httpGet: {path: /healthz, port: http{{ $scheme }}}
  periodSeconds: {{ int $probes.periodSeconds }}
  timeoutSeconds: {{ int $probes.timeoutSeconds }}
  failureThreshold: {{ int $probes.failureThreshold }}
{{- end -}}

{{- define "trireme.preStop" -}}
{{- if .values.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int .values.preStopSeconds }}
{{- end }}
{{- end -}}
