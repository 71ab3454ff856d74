// Package datamovement is the Copy Offload service of a compute node: who may
// do what, where a path of the compute lies on the rabbit, which
// NnfDataMovement a request becomes, and what its status means to the caller.
//
// What decides is pure and reads nothing: the files access*, mount, source,
// destination, options*, command, request, object, answer and fault* can be
// read, and are tested, without any server.
//
// It must not know how the machine mounts (room node), nor what a storage
// profile does (room volume). Everything that a caller or the API server says
// is taken for hostile: the rabbit puts most of it into a shell line of root.
package datamovement
