// Package version carries the build's version. It must not know anything else.
package version

// Version is set by the linker (-X …/internal/version.Version=v1.2.3).
var Version = "v0.0.0"
