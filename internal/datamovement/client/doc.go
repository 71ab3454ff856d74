// Package client is the users' side of the Copy Offload API: it asks nnf-dm
// for copies, follows and ends them. It speaks version 2 of the API to a daemon
// that has it and version 1 to one that has not; the caller need not know.
//
// It must not know terminals, flags or how anything is shown, nor what the
// daemon does with a request.
package client
