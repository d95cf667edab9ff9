//go:build tools

// Package tools pins the command that tools/kind/build builds.
package tools

import _ "github.com/prometheus-operator/prometheus-operator/cmd/prometheus-config-reloader"
