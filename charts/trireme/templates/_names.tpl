{{/* Names and labels. Names of objects stay within 63 characters: 32 of the release and chart, 8, 20 of the pool. */}}

{{- define "trireme.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects pods: never changes in the life of a release. */}}
{{- define "trireme.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trireme.labels" -}}
{{ include "trireme.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name and labels of an object: (dict "root" $ "name" "suffix" "component" "worker") */}}
{{- define "trireme.metadata" -}}
name: {{ include "trireme.fullname" .root }}{{ with .name }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "trireme.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .pool }}
  trireme/pool: {{ . }}
  {{- end }}
{{- end -}}

{{- define "trireme.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trireme.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* A reference to an image: (dict "root" $ "image" .Values.image "tag" "used where the image has none") */}}
{{- define "trireme.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository -}}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .tag .image.tag }}{{ end -}}
{{- end -}}

{{/* Secret and entry with an address: (dict "root" $ "service" "amqp" | "redis") gives `name` and `key`. */}}
{{- define "trireme.address" -}}
{{- $values := index .root.Values .service -}}
{{- if $values.existingSecret.name -}}
name: {{ $values.existingSecret.name }}
key: {{ $values.existingSecret.key }}
{{- else -}}
name: {{ include "trireme.fullname" .root }}-{{ .service }}
key: url
{{- end -}}
{{- end -}}

{{/* The password of a bundled service: as given, as it was, or a new one. */}}
{{- define "trireme.bundledPassword" -}}
{{- $given := (index .root.Values.bundled .service).password -}}
{{- $name := printf "%s-%s" (include "trireme.fullname" .root) .service -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace $name -}}
{{- if $given -}}{{ $given }}
{{- else if $old -}}{{ index $old.data "password" | b64dec }}
{{- else -}}
{{- /* one for each service and rendering: the secrets and the checksums must agree */ -}}
{{- $kept := default (dict) (index .root.Values.bundled "drawn") -}}
{{- if not (hasKey $kept .service) }}{{ $_ := set $kept .service (randAlphaNum 32) }}{{ end -}}
{{- $_ := set .root.Values.bundled "drawn" $kept -}}
{{ index $kept .service }}
{{- end -}}
{{- end -}}
