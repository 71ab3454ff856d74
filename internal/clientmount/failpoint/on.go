//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

var (
	mu     sync.Mutex
	passes = map[string]int{}
	passed int
)

// At lets the crash matrix kill the daemon at a step boundary: it dies at once, as
// by kill -9, when CLIENTMOUNTD_FAILPOINT names this one. With
// CLIENTMOUNTD_FAILPOINT_LOG each boundary that is passed is noted, which is
// how the matrix knows all of them. The second and later passes of a boundary
// in the life of a process are called name#2 and so on; @7 is the seventh of all.
func At(name string) {
	mu.Lock()
	defer mu.Unlock()
	if passes[name]++; passes[name] > 1 {
		name = fmt.Sprintf("%s#%d", name, passes[name])
	}
	if file := os.Getenv("CLIENTMOUNTD_FAILPOINT_LOG"); file != "" {
		if f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintln(f, name)
			f.Close()
		}
	}
	passed++
	if at := os.Getenv("CLIENTMOUNTD_FAILPOINT"); at == name || at == fmt.Sprintf("@%d", passed) {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// FSType maps types to what the mount helpers of a test really mount, as set by
// CLIENTMOUNTD_TEST_FSTYPES ("gfs2=xfs,lustre=tmpfs").
func FSType(t string) string {
	for pair := range strings.SplitSeq(os.Getenv("CLIENTMOUNTD_TEST_FSTYPES"), ",") {
		if from, to, ok := strings.Cut(pair, "="); ok && from == t {
			return to
		}
	}
	return t
}

// HasNoDevice reports whether a memory file system is mounted for a type, so that
// the kernel knows no device of it and the source text has to do.
func HasNoDevice(t string) bool { return FSType(t) == "tmpfs" }
