// Package version carries the build's version. It must not know anything else.
package version

import "runtime"

// Version is set by the linker (-X …/internal/version.Version=v1.2.3).
var Version = "v0.0.0"

// Line is what `program --version` prints, without a line feed, for example
// "clientmountd v1.2.3 (go1.26.0 linux/amd64)". Its first two words are stable.
func Line(program string) string {
	return program + " " + Version + " (" + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

// UserAgent is what API servers see: "clientmountd/v1.2.3 (node)". An audit log
// then tells which build on which node made a request.
func UserAgent(program, node string) string {
	return program + "/" + Version + " (" + node + ")"
}
