// Package dmctl is the command line of nnf-dmctl: its sub-commands, their
// flags and help, exit codes, and what signals do.
//
// It must not know the daemon's protocol.
package dmctl
