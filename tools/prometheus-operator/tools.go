//go:build tools

// Package tools pins the commands that make tools builds.
package tools

import _ "github.com/prometheus-operator/prometheus-operator/cmd/operator"
