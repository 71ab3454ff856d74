// Package abuse plays users who mean harm, against nnf-dm as it is released,
// with the account of an installation and a real API server: they ask for what
// is not theirs, write what a shell on the rabbit would obey, and take more than
// their share. Each user is a process of its own with an identity of its own,
// for the daemon believes nobody but the kernel.
//
// It must not know how the daemon decides: it compares what users get with what
// they should, with what the API server was asked, with what a real shell makes
// of the objects, and with what the daemon's log says of it.
package abuse
