package main

import (
	"fmt"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/e2e/budget"
)

// size is the released binaries', in 10^6 bytes.
func (b *bench) size() error {
	for _, p := range []struct {
		about    program
		variable string
	}{{clientmountd, "CLIENTMOUNTD"}, {nnfDM, "NNF_DM"}} {
		s, err := os.Stat(os.Getenv(p.variable))
		if err != nil {
			return fmt.Errorf("no released daemon, run make build-daemon: %w", err)
		}
		b.about = p.about
		b.add("binary size", "MB", float64(budget.MaxSize(string(p.about)))/1e6, true, []float64{float64(s.Size()) / 1e6}, "stripped, as released; MB = 10^6 bytes")
	}
	return nil
}
