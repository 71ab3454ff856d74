//go:build !failpoints

// Package failpoint is where test builds (build tag failpoints) differ from a
// release: they can be killed at a step boundary, and other file systems can
// stand in for the real ones. In a release it compiles to nothing.
//
// It must not know what the steps do.
package failpoint

// At marks a step boundary. Only test builds can die there.
func At(string) {}

// FSType is the type that the mount table shows for a file system. Only test
// builds know replacements.
func FSType(t string) string { return t }

// HasNoDevice reports whether a replacement without a device is mounted for a
// type of file system. Only test builds have any.
func HasNoDevice(string) bool { return false }
