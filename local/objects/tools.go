//go:build tools

// Package tools pins the trial object store.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
