// Package crash kills the daemon with SIGKILL at every boundary between two of
// its steps, and in the middle of its commands, and looks whether the next
// daemon ends where an undisturbed one would have: the wanted state reached,
// everything mounted once, nothing done more than once too often, nothing left
// behind.
//
// The boundaries are the failpoints of the daemon's test build. A dry run of
// each phase collects those that it really passes, and each of them becomes a
// case: none is left out, and one that is not met again is a failure.
//
// It must not know what a step does, nor which steps there are.
package crash
