//go:build tools

// Package tools pins the Pushgateway that the tests push to.
package tools

import _ "github.com/prometheus/pushgateway"
