//go:build !failpoints

package clientmount

// failpoint marks a step boundary. Only test builds (tag failpoints) can die
// there; in a release it compiles to nothing.
func failpoint(string) {}

// fstype is the type that the mount table shows for a file system. Only test
// builds can be told of stand-ins.
func fstype(t string) string { return t }

// hasNoDevice tells whether a stand-in without a device is mounted for a type
// of file system. Only in test builds.
func hasNoDevice(string) bool { return false }
