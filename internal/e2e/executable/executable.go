// Package executable writes programs that a test runs a moment later.
//
// It must not know what they do.
package executable

import (
	"os"
	"syscall"
)

// Write writes an executable file. No process is forked while the file is open: a
// child that inherits its descriptor would make the first execve fail with ETXTBSY
// (go.dev/issue/22315).
func Write(path string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, content, 0o755)
}
