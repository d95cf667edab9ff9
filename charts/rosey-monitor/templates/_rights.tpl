{{- /* What the operator may do, each right with its reason. No Secret of a user can be read. */}}

{{- /* Where monitors and bots are. */}}
{{- define "rosey-monitor.rights.monitors" -}}
# The monitors themselves.
- apiGroups: [rosey.dev]
  resources: [roseymonitors]
  verbs: [list, watch]
# What is said of them, by server-side apply.
- apiGroups: [rosey.dev]
  resources: [roseymonitors/status]
  verbs: [patch]
# Their objects hold an ownerReference that blocks the monitor's foreground deletion; where the API server asks for it
# (OwnerReferencesPermissionEnforcement), this is the right that allows it.
- apiGroups: [rosey.dev]
  resources: [roseymonitors/finalizers]
  verbs: [update]
# The exporter's configuration: read when it may have changed, applied, removed when it is no longer planned.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Scraping, rules and routes: as above. An apply that creates needs "create" besides "patch".
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules, alertmanagerconfigs]
  verbs: [get, list, watch, create, patch, delete]
# Which objects the stack selects: condition Selected. Without it, and where the stack is elsewhere, that is Unknown.
- apiGroups: [monitoring.coreos.com]
  resources: [prometheuses, alertmanagers]
  verbs: [list, watch]
# The bots' pods are counted; they are never written.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# prometheus-operator says by Event that it refused a channel, and a controller that its pods are refused; we say by Event what only
# the user can mend.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, watch, create]
# A quota or limit range that refuses pods because of the exporter is told by Events of these four; whose exporter it is, their
# pods' labels say. Read one at a time, by name.
- apiGroups: [apps]
  resources: [replicasets, statefulsets, daemonsets]
  verbs: [get]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get]
{{- end }}

{{- /* Of the cluster as a whole. */}}
{{- define "rosey-monitor.rights.cluster" -}}
# Which namespaces a Prometheus selects by their labels: condition Selected.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
# Whether prometheus-operator's kinds are installed, and of which version.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- end }}

{{- define "rosey-monitor.rights.webhooks" -}}
# The webhooks are registered under these two names only; "create" can't be limited to a name.
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  verbs: [create]
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  resourceNames: [rosey-monitor-injector]
  verbs: [get, list, watch, patch]
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations]
  resourceNames: [rosey-monitor-validator]
  verbs: [get, list, watch, patch]
# Both registrations are owned by this role, so that they go when it goes: its uid is read.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [rosey-operator]
  verbs: [get]
{{- end }}

{{- /* In the operator's own namespace. */}}
{{- define "rosey-monitor.rights.own" -}}
# Which replica writes. "create" can't be limited to a name.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [rosey-operator]
  verbs: [get, update]
{{- if .Values.injection.enabled }}
# The certificates of the webhooks, the only Secret that is ever read.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [rosey-operator-webhook]
  verbs: [list, watch, update]
{{- end }}
{{- end }}

{{- /* What the operator may do to the bots' pods: only where exporter.updateInPlace or exporter.repair asks for it. */}}
{{- define "rosey-monitor.rights.pods" -}}
# A pod is read whole, one at a time and by name, before it is changed or evicted: caches keep little of it and may be late.
# The image of its exporter is changed, with two annotations; a pod that came back without an exporter is marked by one.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, patch]
{{- if .Values.exporter.repair }}
# Where a monitor says spec.exporter.repair: Restart, pods without an exporter are evicted, which disruption budgets can refuse.
# Pods are never deleted.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
{{- end }}
{{- end }}
