// Package server is the Copy Offload service as it is spoken on the socket: both
// versions of the protocol, the limits and records of each call, and what has to
// be asked of the API server for it. What is allowed and what an object looks
// like is decided in package datamovement, which is pure.
//
// It must not know how the configuration is read, nor anything of the machine
// but its node's name.
//
// # What costs nothing at idle
//
// Data movements are watched only while somebody follows one, and for some
// seconds afterwards. Answers come from that watch: asking again how far a
// movement is costs the API server nothing.
package server
