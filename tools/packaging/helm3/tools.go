//go:build tools

// Package tools pins Helm 3, and helm-unittest, which is made of it.
package tools

import (
	_ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
	_ "helm.sh/helm/v3/cmd/helm"
)
