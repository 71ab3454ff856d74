// Package daemon is the life of a process: where its log lines go, which
// limits the Go runtime works under, what signals do, and what the service
// manager is told.
//
// It must not know Kubernetes objects, mounts, or where a setting came from:
// it takes plain values. Nothing in it ticks: an idle process has no timer of
// this package, except one when the service manager asks for watchdog pings.
package daemon
