//go:build tools

// Package programs names the command to build.
package programs

import _ "go.etcd.io/etcd/server/v3"
