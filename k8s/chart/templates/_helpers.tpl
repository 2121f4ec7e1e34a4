{{/* What each service is: gRPC and admin port, what it talks to, and whether calls end with it. peers are told to it by their
     names; told are services whose replicas tell it their own addresses, by way of Redis; tells is the variable from which it
     knows its own. engines: remote ones of a gateway. */}}
{{- define "parley.catalog" -}}
agent-registry: {grpc: 7101, admin: 8101, redis: true, peers: {}, told: [], calls: false, priority: edge}
dispatch-broker: {grpc: 7100, admin: 8100, redis: true, peers: {}, told: [dispatch-broker, room-server], tells: PARLEY_BROKER_PEER_ADDRESS, calls: false, priority: calls}
room-server: {grpc: 7105, admin: 8105, redis: true, peers: {dispatch: dispatch-broker}, told: [], tells: PARLEY_MEDIA_URL, calls: true, priority: calls}
stt-gateway: {grpc: 7102, admin: 8102, redis: true, peers: {}, told: [], calls: true, provider: stt, engines: [openai, deepgram], priority: calls}
tts-gateway: {grpc: 7103, admin: 8103, redis: true, peers: {}, told: [tts-gateway], tells: PARLEY_TTS_PEER_ADDRESS, calls: true, provider: tts, engines: [openai], priority: calls}
llm-gateway: {grpc: 7104, admin: 8104, redis: true, peers: {}, told: [], calls: true, provider: llm, engines: [openai], priority: calls}
api-server: {grpc: 7106, admin: 9080, http: 8080, livekit: 7880, redis: false, told: [], calls: false, priority: edge,
  peers: {registry: agent-registry, dispatch: dispatch-broker, rooms: room-server, stt: stt-gateway, tts: tts-gateway, llm: llm-gateway}}
{{- end }}

{{- define "parley.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: parley
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* The image of a service, by digest where one is named. */}}
{{- define "parley.image" -}}
{{- $image := .root.Values.image -}}
{{- $path := printf "%s/%s" $image.repository .name -}}
{{- if $image.registry }}{{ $path = printf "%s/%s" $image.registry $path }}{{ end -}}
{{- with get $image.digests .name }}{{ printf "%s@%s" $path . }}{{ else }}{{ printf "%s:%s" $path (default $.root.Chart.AppVersion $image.tag) }}{{ end -}}
{{- end }}

{{- define "parley.preStop" -}}
{{- if gt (int .Values.preStop.seconds) 0 }}
lifecycle:
  preStop:
    {{- if eq .Values.preStop.mode "native" }}
    sleep: {seconds: {{ .Values.preStop.seconds }}}
    {{- else }}
    exec: {command: [sleep, {{ .Values.preStop.seconds | quote }}]}
    {{- end }}
{{- end }}
{{- end }}

{{- define "parley.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* What every pod of ours says about itself: security, placement, tolerations. */}}
{{- define "parley.pod" -}}
serviceAccountName: {{ .name }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- if .root.Values.priorityClasses.create }}
priorityClassName: {{ .root.Release.Namespace }}-{{ .priority }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .root.Values.podSecurity.runAsUser }}
  runAsGroup: {{ .root.Values.podSecurity.runAsGroup }}
  fsGroup: {{ .root.Values.podSecurity.runAsGroup }}
  seccompProfile: {type: RuntimeDefault}
tolerations:
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .root.Values.nodeLossTolerationSeconds }}}
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .root.Values.nodeLossTolerationSeconds }}}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector: {matchLabels: {app.kubernetes.io/name: {{ $.name }}}}
  {{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector: {matchLabels: {app.kubernetes.io/name: {{ .name }}}}
{{- end }}

{{/* Where Redis is, for a service that uses it. */}}
{{- define "parley.redisEnv" -}}
{{- $redis := .Values.redis }}
{{- if eq $redis.mode "sentinel" }}
- {name: PARLEY_REDIS_SENTINELS, value: {{ join "," $redis.sentinels | quote }}}
- {name: PARLEY_REDIS_MASTER_NAME, value: {{ $redis.masterName | quote }}}
{{- with $redis.sentinelPasswordSecret }}
{{- if .name }}
- {name: PARLEY_REDIS_SENTINEL_PASSWORD, valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}}
{{- end }}
{{- end }}
{{- else if $redis.tls.enabled }}
- {name: PARLEY_REDIS_ADDRESS, value: "127.0.0.1:6379"}  # the sidecar
{{- else }}
- {name: PARLEY_REDIS_ADDRESS, value: {{ $redis.address | quote }}}
{{- end }}
{{- with $redis.passwordSecret }}
{{- if .name }}
- {name: PARLEY_REDIS_PASSWORD, valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}}
{{- end }}
{{- end }}
{{- end }}

{{/* The end of TLS to Redis: a sidecar that starts before the service and ends after it. */}}
{{- define "parley.redisTls" -}}
- name: redis-tls
  image: {{ .Values.redis.tls.image | default (include "parley.image" (dict "root" . "name" "redis-tls")) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args: [/etc/stunnel/stunnel.conf]
  startupProbe: {tcpSocket: {port: 6379, host: 127.0.0.1}, periodSeconds: 1, failureThreshold: 30}
  resources:
    requests: {cpu: 20m, memory: 16Mi, ephemeral-storage: 16Mi}
    limits: {memory: 64Mi, ephemeral-storage: 64Mi}
  {{- include "parley.containerSecurity" . | nindent 2 }}
  volumeMounts:
    - {name: redis-tls, mountPath: /etc/stunnel, readOnly: true}
    - {name: redis-ca, mountPath: /etc/redis-ca, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Where a room server takes browsers' media, what it tells them, and the relays. */}}
{{- define "parley.rtcEnv" -}}
- {name: PARLEY_RTC_UDP_PORT, value: {{ .port | quote }}}
{{- if .lastPort }}
- {name: PARLEY_RTC_UDP_PORT_LAST, value: {{ .lastPort | quote }}}
{{- end }}
{{- if .tcpPort }}
- {name: PARLEY_RTC_TCP_PORT, value: {{ .tcpPort | quote }}}
{{- end }}
{{- if .ipv6 }}
- {name: PARLEY_RTC_ADDRESS, value: "::"}
{{- end }}
{{- if .announce }}
- {name: PARLEY_RTC_ANNOUNCE, value: {{ join "," .announce | quote }}}
{{- else }}
- {name: PARLEY_RTC_ANNOUNCE, valueFrom: {fieldRef: {fieldPath: status.{{ ternary "host" "pod" (or .hostPort .hostNetwork) }}{{ ternary "IPs" "IP" .ipv6 }}}}}
{{- end }}
{{- with .stunServer }}
- {name: PARLEY_RTC_STUN_SERVER, value: {{ . | quote }}}
{{- end }}
{{- if .turn.urls }}
- {name: PARLEY_TURN_URLS, value: {{ join "," .turn.urls | quote }}}
- {name: PARLEY_TURN_TTL, value: {{ .turn.ttl | quote }}}
{{- end }}
{{- if .turn.secret }}
- {name: PARLEY_TURN_SECRET_FILE, value: /etc/parley-turn/{{ .turn.key }}}
{{- end }}
{{- end }}

{{/* What every process of ours is told: keys, certificates, where spans go. */}}
{{- define "parley.commonEnv" -}}
- {name: PARLEY_KEYS_FILE, value: /etc/parley/keys.yaml}
{{- if .Values.tls.enabled }}
- {name: PARLEY_TLS_CERTIFICATE, value: /etc/parley-tls/tls.crt}
- {name: PARLEY_TLS_KEY, value: /etc/parley-tls/tls.key}
- {name: PARLEY_TLS_AUTHORITIES, value: /etc/parley-tls/ca.crt}
- {name: PARLEY_TLS_SERVER_NAME, value: {{ .Values.tls.serverName | quote }}}
- {name: PARLEY_TLS_MUTUAL, value: {{ .Values.tls.mutual | quote }}}
{{- end }}
{{- with .Values.tracing.endpoint }}
- {name: PARLEY_TRACE_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* A service as the peer of a policy: its pods, or the nodes where it is on their network. */}}
{{- define "parley.peer" -}}
{{- if and .nodes (eq .name "room-server") }}{{ toJson .nodes }}{{ else }}[{podSelector: {matchLabels: {app.kubernetes.io/name: {{ .name }}}}}]{{ end }}
{{- end }}

{{- define "parley.collectorEgress" -}}
{{- with .Values.tracing.endpoint }}
# Spans.
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $.Values.tracing.namespace }}}}}]
  ports: [{port: {{ regexFind ":[0-9]+" (regexReplaceAll "^https?://" . "") | trimPrefix ":" }}, protocol: TCP}]
{{- end }}
{{- end }}

{{/* Three answers: it has started, it lives (never asks Redis or a neighbour), it may take traffic. Over gRPC, or, where that
     has TLS, which Kubernetes' probes have not, over the admin port's HTTP. */}}
{{- define "parley.probes" -}}
{{- $http := and .tls .admin }}
startupProbe: { {{- if $http }}httpGet: {path: /healthz, port: {{ .admin }}}{{ else }}grpc: {port: {{ .grpc }}}{{ end }}, periodSeconds: 2, failureThreshold: 30}
livenessProbe: { {{- if $http }}httpGet: {path: /healthz, port: {{ .admin }}}{{ else }}grpc: {port: {{ .grpc }}}{{ end }}, periodSeconds: 20, timeoutSeconds: 5, failureThreshold: 3}
readinessProbe: { {{- if $http }}httpGet: {path: /readyz, port: {{ .admin }}}{{ else }}grpc: {port: {{ .grpc }}, service: ready}{{ end }}, periodSeconds: 3, timeoutSeconds: 2, failureThreshold: 1}
{{- end }}

{{/* A file of settings, and whatever else a service reads: one ConfigMap of `config` and `files`. */}}
{{- define "parley.configMap" -}}
{{- if or .values.config .values.files }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-config
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "parley.labels" (dict "root" .root "name" .name) | nindent 4 }}
data:
  {{- with .values.config }}
  config.yaml: |
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $name, $text := .values.files }}
  {{ $name }}: {{ $text | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "parley.ownEnv" -}}
{{- with .config }}
- {name: PARLEY_CONFIG, value: /etc/parley-config/config.yaml}
{{- end }}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "parley.ownMounts" -}}
{{- if or .config .files }}
- {name: config, mountPath: /etc/parley-config, readOnly: true}
{{- end }}
{{- with .volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "parley.ownVolumes" -}}
{{- if or .values.config .values.files }}
- {name: config, configMap: {name: {{ .name }}-config}}
{{- end }}
{{- with .values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of a pod's template: settings are read at the start, so a change of them is a rollout. */}}
{{- define "parley.configSum" -}}
{{- if or .config .files }}
checksum/config: {{ toJson (dict "config" .config "files" .files) | sha256sum }}
{{- end }}
{{- end }}

{{/* Flags from values: --name value. */}}
{{- define "parley.flags" -}}
{{- range $flag, $value := . }}, --{{ $flag }}, {{ $value | quote }}{{ end -}}
{{- end }}

{{- define "parley.checks" -}}
{{- $redis := .Values.redis -}}
{{- if and $redis.tls.enabled (ne $redis.mode "external") }}{{ fail "redis.tls is for redis.mode external: Sentinels name addresses that a tunnel cannot know, and the internal Redis has no certificate" }}{{ end -}}
{{- if and (eq $redis.mode "sentinel") (empty $redis.sentinels) }}{{ fail "redis.mode sentinel needs redis.sentinels" }}{{ end -}}
{{- $rtc := (index .Values.services "room-server").rtc -}}
{{- if and $rtc.hostPort $rtc.hostNetwork }}{{ fail "rtc.hostPort opens a port of the pod on the node, rtc.hostNetwork puts the pod there: choose one" }}{{ end -}}
{{- if and $rtc.lastPort (not $rtc.hostNetwork) }}{{ fail "rtc.lastPort is for rtc.hostNetwork: in a pod's own network nobody else takes rtc.port" }}{{ end -}}
{{- if and $rtc.lastPort (lt (int $rtc.lastPort) (int $rtc.port)) }}{{ fail "rtc.lastPort is before rtc.port" }}{{ end -}}
{{- if and $rtc.hostNetwork .Values.networkPolicy.enabled (empty .Values.networkPolicy.nodes) }}{{ fail "rtc.hostNetwork with network policies needs networkPolicy.nodes: who speaks from a node has no pod's address" }}{{ end -}}
{{- range $rtc.turn.urls }}{{ if and (not (hasPrefix "stun:" .)) (empty $rtc.turn.secret) }}{{ fail (printf "rtc.turn.urls names the relay %s: rtc.turn.secret must name the secret with its static-auth-secret" .) }}{{ end }}{{ end -}}
{{- range $name, $what := include "parley.catalog" . | fromYaml -}}
{{- $values := index $.Values.services $name -}}
{{- range $engine := list "openai" "deepgram" }}{{ if and (hasKey $values $engine) (not (has $engine ($what.engines | default list))) }}{{ fail (printf "%s has no engine %s" $name $engine) }}{{ end }}{{ end -}}
{{- if and (hasKey $values "wyoming") (not (has $name (list "stt-gateway" "tts-gateway"))) }}{{ fail (printf "%s has no engine wyoming" $name) }}{{ end -}}
{{- end -}}
{{- if .Values.coturn.enabled -}}
{{- if or (empty $rtc.turn.urls) (empty $rtc.turn.secret) }}{{ fail "coturn.enabled needs rtc.turn.urls, by which browsers reach it, and rtc.turn.secret, which it shares with the room servers" }}{{ end -}}
{{- if empty .Values.coturn.allowedPeers }}{{ fail "coturn.allowedPeers must name the addresses of room servers: it relays to nobody else" }}{{ end -}}
{{- end -}}
{{- if and .Values.ingress.host (empty .Values.ingress.tlsSecret) }}{{ fail "ingress.tlsSecret must name the certificate of ingress.host: browsers give no microphone to pages without TLS" }}{{ end -}}
{{- end }}
