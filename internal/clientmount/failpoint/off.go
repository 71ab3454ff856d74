//go:build !failpoints

// Package failpoint contains the differences between test builds (build tag failpoints)
// and releases: tests can kill the daemon at a step boundary, and can replace the types
// of file systems. In a release its functions do nothing.
//
// It does not depend on the steps.
package failpoint

// At marks a step boundary. Only test builds can be killed there.
func At(string) {}

// FSType returns the type that the mount table shows for a file system of type t. Only
// test builds have replacements.
func FSType(t string) string { return t }

// HasNoDevice reports whether the replacement for a type of file system has no device.
// Only test builds have replacements.
func HasNoDevice(string) bool { return false }
