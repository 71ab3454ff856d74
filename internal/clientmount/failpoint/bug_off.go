//go:build !chaosbug

package failpoint

// Bug reports whether the build has a seeded defect. Only builds with the tag chaosbug have.
func Bug(string) bool { return false }
