// Package oneprocessor makes the program that imports it begin with one
// processor for Go code, unless GOMAXPROCS is in the environment.
//
// Both daemons run with one by default (runtime.gomaxprocs). Setting that when
// the configuration has been read is too late: a processor that has been at
// work leaves its caches behind when it is taken away, about half a megabyte of
// the three that an idle daemon needs. Therefore this happens while packages
// are initialised, and this one needs so little that it comes before all that
// is large.
//
// It must not know what the configuration says; package daemon's ApplyRuntime
// gives the processors back where it asks for them.
package oneprocessor

import (
	"runtime"
	"syscall"
)

// Taken tells that the other processors were taken away here.
var Taken = take()

func take() bool {
	if value, _ := syscall.Getenv("GOMAXPROCS"); value != "" {
		return false
	}
	runtime.GOMAXPROCS(1)
	return true
}
