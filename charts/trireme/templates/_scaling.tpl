{{/* What scales a pool: `keda`, `hpa` or `off`; never two of them. (dict "root" $ "pool" values) */}}
{{- define "trireme.scaler" -}}
{{- $mode := .pool.scaling.mode -}}
{{- if eq $mode "auto" -}}
{{- ternary "keda" "hpa" (.root.Capabilities.APIVersions.Has "keda.sh/v1alpha1/ScaledObject") -}}
{{- else -}}
{{- $mode -}}
{{- end -}}
{{- end -}}

{{/* Whether KEDA scales any pool: `true` or nothing. */}}
{{- define "trireme.anyKeda" -}}
{{- $any := false -}}
{{- range $name := keys .Values.pools -}}
{{- $pool := include "trireme.pool" (dict "root" $ "name" $name) | fromYaml -}}
{{- if eq (include "trireme.scaler" (dict "root" $ "pool" $pool)) "keda" }}{{ $any = true }}{{ end -}}
{{- end -}}
{{- if $any }}true{{ end -}}
{{- end -}}

{{/* Secret and entry with the address that KEDA asks. */}}
{{- define "trireme.kedaAddress" -}}
{{- $keda := .Values.keda.rabbitmq -}}
{{- if $keda.existingSecret.name -}}
name: {{ $keda.existingSecret.name }}
key: {{ $keda.existingSecret.key }}
{{- else if or $keda.url (eq $keda.protocol "http") -}}
name: {{ include "trireme.fullname" . }}-keda
key: host
{{- else -}}
{{ include "trireme.address" (dict "root" . "service" "amqp") }}
{{- end -}}
{{- end -}}
