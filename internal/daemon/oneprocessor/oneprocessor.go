// Package oneprocessor sets GOMAXPROCS to 1 during the initialisation of the program
// that imports it, unless GOMAXPROCS is in the environment.
//
// Both daemons use one processor by default (runtime.gomaxprocs). Setting it after the
// configuration has been read is too late: a processor that has run keeps its caches
// after it is removed, about half a megabyte of the three that an idle daemon needs.
// This package imports so little that it is initialised before all large packages.
//
// It must not read the configuration. Package daemon restores the number of processors
// if the configuration requests more.
package oneprocessor

import (
	"runtime"
	"syscall"
)

// Taken reports whether this package has set GOMAXPROCS to 1.
var Taken = take()

func take() bool {
	if value, _ := syscall.Getenv("GOMAXPROCS"); value != "" {
		return false
	}
	runtime.GOMAXPROCS(1)
	return true
}
