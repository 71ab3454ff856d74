// Package clientmount makes this node's ClientMounts true. It is the only room
// that joins Kubernetes and the machine: the watch hands it objects, a plan
// from package volume says what to do, package node does it, and one status
// patch says how it went.
//
// One loop owns all state that is shared between objects. Each object has at
// most one worker, which lives only while there is work, so an idle node runs
// nothing and a stuck mount holds up nobody else. What must survive a crash is
// in a record on disk before the first effect (record.go).
//
// It must not know how requests are sent, how a command line is put together
// or how the kernel is asked; and it never writes a spec.
package clientmount
