// Package version has the version of the build, and nothing else.
package version

import "runtime"

// Version is set by the linker (-X …/internal/version.Version=v1.2.3).
var Version = "v0.0.0"

// Line returns the output of `program --version` without a line feed, for example
// "clientmountd v1.2.3 (go1.26.0 linux/amd64)". The form of the first two words is stable.
func Line(program string) string {
	return program + " " + Version + " (" + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

// UserAgent returns the User-Agent for the API server: "clientmountd/v1.2.3 (node)". So
// audit logs have the build and the node of a request.
func UserAgent(program, node string) string {
	return program + "/" + Version + " (" + node + ")"
}
