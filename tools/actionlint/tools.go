//go:build tools

// Package tools pins the command that tools/actionlint/build builds.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
