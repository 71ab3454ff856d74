package executable

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// A program can be run immediately, even while others are written and started.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 30 {
				path := filepath.Join(dir, fmt.Sprint(i, "-", j))
				if err := Write(path, []byte("#!/bin/sh\nexit 0\n")); err != nil {
					t.Error(err)
					return
				}
				if err := exec.Command(path).Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
