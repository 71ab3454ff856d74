// Package unixsocket is the listening socket of a node-local service: taken
// from systemd or made by us, with callers known by the kernel's word and held
// to limits per user.
//
// It must not know what is served over the connections (no gRPC, no
// Kubernetes), nor what a caller may do there: it says who calls, and how much.
//
// # What callers can do to each other
//
// A user who opens too many connections, never says a word on them, or asks too
// often is refused alone: every limit is counted per uid, as the kernel reports
// it. LimiterOptions.Total is shared: a part of it is reserved for users without
// a slot, and a full listener closes idle connections of the user who has most.
// Log records about callers are limited in the same way (Records).
//
// # Restarts and idle exits
//
// With a socket of systemd's, the kernel queues clients while no process
// accepts: between StopAccepting, or the end of one process, and the next one a
// client waits, and is not refused. With a socket of our own it is refused once
// Close has removed it.
//
// # What costs nothing at idle
//
// A goroutine waits in accept. There is no timer, except one per connection
// that has not said its first bytes, and the one of an Idle while nobody calls.
package unixsocket
