// Package executable writes programs that a test then runs.
//
// It must not know the programs.
package executable

import (
	"os"
	"syscall"
)

// Write writes an executable file. It prevents forks while the file is open: a child
// that inherits the descriptor would make execve fail with ETXTBSY
// (go.dev/issue/22315).
func Write(path string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, content, 0o755)
}
