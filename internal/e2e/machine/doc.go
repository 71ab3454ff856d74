// Package machine boots whole machines for tests: systemd as the first process
// in a container (half a second), or a virtual machine with its own kernel,
// NVMe namespaces, LVM and GFS2 (ten to thirty seconds, as every instruction is
// emulated unless told otherwise). Both come from one root file system, which
// prepare.sh makes once. Nothing of it is the host's: what a test does inside ends
// with the laboratory in which the machine runs.
//
// Tests run scripts inside and look at what comes out. The API server is the
// laboratory's; machines reach it at the address that the host has for it.
//
// It must not know what a test is about.
package machine
