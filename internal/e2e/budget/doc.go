// Package budget holds tests of promises that rot unnoticed: how big a daemon
// is, what it is linked from, which room may use which, and that every package
// says what it is for. All of it can be told from the sources and the linker;
// what has to be measured is the bench's.
//
// It must not know what the daemons do.
package budget
