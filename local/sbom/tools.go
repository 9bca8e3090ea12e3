//go:build tools

// Package tools pins the program that describes the images in a module of its own, whose versions bind nothing else.
package tools

import _ "github.com/anchore/syft/cmd/syft"
