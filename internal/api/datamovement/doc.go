// Package datamovement is the Copy Offload API, version 1, as programs of users
// speak it: datamovement.proto, the code generated from it, and the forms in
// which times are written there. Version 2 is in the folder v2.
//
// It must not know who may do what, nor that Kubernetes exists. clientmountd
// must not link it.
package datamovement

//go:generate ./generate.sh

// Socket is where the daemon listens unless it is told otherwise (contract
// nnf-dm.md 1.2).
const Socket = "/var/run/nnf-dm.sock"

// APIVersion is the one version that the Version call reports. Version 2 is not
// in the list: old clients compare the list with what they know.
const APIVersion = "1"
