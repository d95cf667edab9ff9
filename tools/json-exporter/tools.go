//go:build tools

// Package tools pins what the benchmark of the exporter is compared with.
package tools

import _ "github.com/prometheus-community/json_exporter"
