// Package conformance is the proof that the daemon keeps its promises: a table
// of behaviours, each played for every type of file system, with the built
// daemon, a real API server and real mounts. Beside it stand scenes that do not
// depend on the type, such as bad input.
//
// It must not know how the daemon does anything: it looks at the API server,
// the mount table, the programs that were called and the log, which is all that
// a site can see.
package conformance
