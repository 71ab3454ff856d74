package daemon

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// ReturnMemory gives back what starting and working needed and waiting does
// not. It is called when the daemon has become idle.
//
// The Go heap is left alone until there has been a garbage collection: the
// first one allocates more than it frees in a heap of this size, and from then
// on the runtime wakes up every two minutes for the next.
func ReturnMemory() error {
	var gc debug.GCStats
	if debug.ReadGCStats(&gc); gc.NumGC > 0 {
		debug.FreeOSMemory()
	}
	return returnPages()
}

// returnPages takes the pages of the program's own file, code and constants,
// out of this process. They stay in the kernel's page cache, where other needs
// may now evict them, and come back by themselves when they are touched, at
// about a microsecond each. Nothing that was written to is affected.
func returnPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(string(line), "%x-%x %s", &from, &to, &mode); err != nil {
			continue
		}
		if strings.Contains(mode, "w") || !strings.HasSuffix(strings.TrimSuffix(string(line), "\n"), " "+exe) {
			continue
		}
		// By number, not through package unix: this memory is not Go's.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise %x-%x: %w", from, to, errno)
		}
	}
	return nil
}
