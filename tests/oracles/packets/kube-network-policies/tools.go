//go:build tools

// Package programs names the command to build.
package programs

import _ "sigs.k8s.io/kube-network-policies/cmd"
