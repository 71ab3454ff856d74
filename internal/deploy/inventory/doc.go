// Package inventory knows what is to be installed where: the compute nodes of a
// system, the daemons with their accounts, and the address of the API server as
// computes use it. It reads the SystemConfiguration, from the cluster or a file,
// and the daemons.yaml and systems.yaml of existing installations.
//
// All of that was written by others. Names are checked here, once, before any of
// them gets near a command line. It must not know how a node is reached.
package inventory
