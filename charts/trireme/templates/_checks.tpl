{{/* What no schema can say: relations between values. Each failure names the value and the way out. */}}

{{- define "trireme.check" -}}
{{- range $service, $name := dict "amqp" "rabbitmq" "redis" "redis" -}}
{{- $values := index $.Values $service -}}
{{- $bundled := (index $.Values.bundled $name).enabled -}}
{{- $ways := add (ternary 1 0 (ne $values.url "")) (ternary 1 0 (ne $values.existingSecret.name "")) (ternary 1 0 $bundled) -}}
{{- if eq (int $ways) 0 -}}
{{- fail (printf "%s: no address. In production set %s.existingSecret.name to a Secret with the address; to try it out set bundled.%s.enabled=true" $service $service $name) -}}
{{- end -}}
{{- if gt (int $ways) 1 -}}
{{- fail (printf "%s: more than one address. Set one of %s.existingSecret.name, %s.url and bundled.%s.enabled" $service $service $service $name) -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.coordinator.enabled) (not .Values.pools) -}}
{{- fail "nothing to run: coordinator.enabled is false and pools is empty" -}}
{{- end -}}
{{- if .Values.coordinator.enabled -}}
{{- include "trireme.checkGrace" (dict "at" "coordinator" "values" .Values.coordinator) -}}
{{- end -}}
{{- range $pool := keys .Values.pools | sortAlpha -}}
{{- include "trireme.checkPool" (dict "root" $ "name" $pool) -}}
{{- end -}}
{{- if and .Values.existingConfig.name .Values.config -}}
{{- fail "config: set one of config and existingConfig.name; Trireme reads one file" -}}
{{- end -}}
{{- if and (not .Values.existingConfig.name) (not (hasSuffix ".yaml" .Values.existingConfig.key)) -}}
{{- fail "existingConfig.key: config is written as YAML, so it has to end in .yaml" -}}
{{- end -}}
{{- if and .Values.keda.rabbitmq.url .Values.keda.rabbitmq.existingSecret.name -}}
{{- fail "keda.rabbitmq: set one of url and existingSecret.name" -}}
{{- end -}}
{{- end -}}

{{- define "trireme.checkGrace" -}}
{{- $least := add .values.preStopSeconds .values.drainSeconds 5 -}}
{{- if lt (int .values.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %d is too short, Kubernetes would kill pods that drain: use at least %d (preStopSeconds %d + drainSeconds %d + 5)" .at (int .values.terminationGracePeriodSeconds) (int $least) (int .values.preStopSeconds) (int .values.drainSeconds)) -}}
{{- end -}}
{{- end -}}

{{- define "trireme.checkPool" -}}
{{- $at := printf "pools.%s" .name -}}
{{- $pool := include "trireme.pool" . | fromYaml -}}
{{- if not $pool.queues -}}
{{- fail (printf "%s.queues: no queue to serve; use for example {%s: 256}" $at .name) -}}
{{- end -}}
{{- include "trireme.checkGrace" (dict "at" $at "values" $pool) -}}
{{- $scaling := $pool.scaling -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- fail (printf "%s.scaling.maxReplicas: %d is less than minReplicas %d" $at (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
{{- end -}}
{{- if eq (include "trireme.scaler" (dict "root" .root "pool" $pool)) "keda" -}}
{{- $keda := .root.Values.keda -}}
{{- if and (or $scaling.oldestTask.enabled $scaling.busySlots.enabled) (not $keda.prometheus.serverAddress) -}}
{{- fail (printf "%s.scaling: oldestTask and busySlots need keda.prometheus.serverAddress" $at) -}}
{{- end -}}
{{- $address := or $keda.rabbitmq.url $keda.rabbitmq.existingSecret.name .root.Values.bundled.rabbitmq.enabled -}}
{{- if and (eq $keda.rabbitmq.protocol "http") (not $address) -}}
{{- fail (printf "keda.rabbitmq.existingSecret.name: to scale %s KEDA needs the address of RabbitMQ's management API; without one set keda.rabbitmq.protocol=amqp, or scaling.mode=hpa or off" $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}
