// Package vm tests the installed daemons on a virtual machine: logical volumes
// on NVMe namespaces, xfs, gfs2 and raw devices, namespaces that come late, and
// what a reboot leaves.
package vm
