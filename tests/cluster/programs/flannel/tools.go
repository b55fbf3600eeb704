//go:build tools && cgo

// Package programs names the command to build.
package programs

import _ "github.com/flannel-io/flannel"
