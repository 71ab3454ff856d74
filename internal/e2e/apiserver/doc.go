// Package apiserver is the matrix of troubles with the API server: the daemon
// as it is released meets a server that is down, slow, wrong, of another
// version or of another authority, and credentials that change or lose rights.
// Each scene has a node, a proxy and a daemon of its own, so that they run side
// by side; those that harm the server itself have a server of their own.
//
// It must not know how the daemon reconciles: it looks at the kernel's mount
// table, at the API objects, at what the proxy counted, and at the log and
// status that an administrator sees.
package apiserver
