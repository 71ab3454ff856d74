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

// At marks a step boundary. If CLIENTMOUNTD_FAILPOINT is the name of the boundary, it
// kills the daemon with SIGKILL. It appends the name of each passed boundary to the file
// in CLIENTMOUNTD_FAILPOINT_LOG, from which the crash matrix gets the list of all of
// them. The second and later passes of a boundary in one process are named name#2 and so
// on; @7 is the seventh pass of any boundary.
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

// FSType returns the type that the mount helpers of a test mount in place of t, from
// CLIENTMOUNTD_TEST_FSTYPES ("gfs2=xfs,lustre=tmpfs").
func FSType(t string) string {
	for pair := range strings.SplitSeq(os.Getenv("CLIENTMOUNTD_TEST_FSTYPES"), ",") {
		if from, to, ok := strings.Cut(pair, "="); ok && from == t {
			return to
		}
	}
	return t
}

// HasNoDevice reports whether a file system in memory replaces a type, so that only its
// source text can be compared.
func HasNoDevice(t string) bool { return FSType(t) == "tmpfs" }
