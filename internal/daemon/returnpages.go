package daemon

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ReturnPages takes the pages of the program's own file, code and constants,
// out of this process. Starting and working have touched nearly all of them;
// waiting needs few. They stay in the kernel's page cache, where other needs
// may now evict them, and come back by themselves when they are touched, at
// less than a microsecond each. Nothing that was written to is affected.
//
// It is called when the daemon has become idle. The Go heap is left alone on
// purpose: a garbage collection allocates more than it frees in a heap of this
// size, and after the first one the runtime wakes up every two minutes for the
// next.
func ReturnPages() error {
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
