{{/* Who may use the API, and with which certificate it answers. All take the values of the coordinator. */}}

{{- define "trireme.coordinatorEnvironment" -}}
- name: TRIREME__COORDINATOR__GRACE
  value: {{ int .drainSeconds }}s
- name: TRIREME__COORDINATOR__ACCESS
  value: {{ .access.mode }}
{{- if .access.bootstrapSecret.name }}
- name: TRIREME__COORDINATOR__BOOTSTRAP_KEY_FILE
  value: /etc/trireme/access/{{ .access.bootstrapSecret.key }}
{{- end }}
{{- if .tls.secret }}
- name: TRIREME__COORDINATOR__TLS__CERT_FILE
  value: /etc/trireme/tls/api/tls.crt
- name: TRIREME__COORDINATOR__TLS__KEY_FILE
  value: /etc/trireme/tls/api/tls.key
{{- end }}
{{- end -}}

{{- define "trireme.accessMounts" -}}
{{- if .access.bootstrapSecret.name }}
- name: bootstrap-key
  mountPath: /etc/trireme/access
  readOnly: true
{{- end }}
{{- if .tls.secret }}
- name: api-tls
  mountPath: /etc/trireme/tls/api
  readOnly: true
{{- end }}
{{- end -}}

{{- define "trireme.accessVolumes" -}}
{{- if .access.bootstrapSecret.name }}
- name: bootstrap-key
  secret:
    secretName: {{ .access.bootstrapSecret.name }}
    items:
      - {key: {{ .access.bootstrapSecret.key }}, path: {{ .access.bootstrapSecret.key }}}
{{- end }}
{{- if .tls.secret }}
- name: api-tls
  secret:
    secretName: {{ .tls.secret }}
{{- end }}
{{- end -}}

{{/* Secrets by name, of workers alone. Both take the root. */}}

{{- define "trireme.secretMounts" -}}
{{- if .Values.providers.namedSecret }}
- name: secrets
  mountPath: /etc/trireme/secrets
  readOnly: true
{{- end }}
{{- end -}}

{{- define "trireme.secretVolumes" -}}
{{- with .Values.providers.namedSecret }}
- name: secrets
  secret:
    secretName: {{ . }}
{{- end }}
{{- end -}}
