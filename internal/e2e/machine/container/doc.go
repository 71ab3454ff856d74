// Package container tests the installed daemons on a machine with systemd as its
// first process: units, sandbox, journal, socket activation. What needs a
// kernel of its own is in the package vm.
package container
