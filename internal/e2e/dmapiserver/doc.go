// Package dmapiserver is the matrix of troubles with the API server for nnf-dm:
// the daemon as it is released meets a server that is down, slow or wrong,
// credentials that change or lose rights, and its own sudden end. Each scene has
// a node, a job, a proxy and a daemon of its own, so that they run side by side.
//
// It must not know how the daemon works: it judges what callers get and when, how
// often the server is asked, and what the administrator reads in the log. The
// rabbit is played by writing what a rabbit writes.
package dmapiserver
