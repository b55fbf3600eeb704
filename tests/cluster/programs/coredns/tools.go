//go:build tools

// Package programs names the command to build.
package programs

import _ "github.com/coredns/coredns"
