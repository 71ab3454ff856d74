package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// busy holds a path in one way until its input ends: cwd (working directory),
// open (an open file), mmap (a mapping whose file is closed again), or nothing
// (it merely lives, for a mount namespace of its own). It prints one line when
// it holds.
func busy(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) < 1 || (args[0] != "nothing" && len(args) < 2) {
		fmt.Fprintln(stderr, "usage: standin busy cwd|open|mmap|nothing [PATH]")
		return 2
	}
	release, err := hold(args)
	if err != nil {
		fmt.Fprintln(stderr, "standin busy:", err)
		return 1
	}
	fmt.Fprintln(stdout, "holding")
	_, _ = io.Copy(io.Discard, stdin) // ends when the holder should let go
	release()
	return 0
}

func hold(args []string) (release func(), err error) {
	switch args[0] {
	case "nothing":
		return func() {}, nil
	case "cwd":
		return func() {}, os.Chdir(args[1])
	}
	f, err := os.OpenFile(args[1], os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch args[0] {
	case "open":
		return func() { f.Close() }, nil
	case "mmap":
		defer f.Close()
		if err := f.Truncate(4096); err != nil {
			return nil, err
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		return func() { _ = unix.Munmap(mem) }, nil
	}
	return nil, fmt.Errorf("unknown way to hold: %s", args[0])
}
