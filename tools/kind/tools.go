//go:build tools

// Package tools pins the command that tools/kind/build builds.
package tools

import _ "sigs.k8s.io/kind"
