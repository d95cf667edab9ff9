//go:build tools

// Package tools pins the commands that make tools builds.
package tools

import _ "go.etcd.io/etcd/server/v3"
