package main

import (
	"fmt"
	"os"
)

// size is the released binaries', in 10^6 bytes.
func (b *bench) size() error {
	for _, p := range []struct {
		about    program
		variable string
		target   float64
	}{{clientmountd, "CLIENTMOUNTD", 12}, {nnfDM, "NNF_DM", 16}} {
		s, err := os.Stat(os.Getenv(p.variable))
		if err != nil {
			return fmt.Errorf("no released daemon, run make build-daemon: %w", err)
		}
		b.about = p.about
		b.add("binary size", "MB", p.target, true, []float64{float64(s.Size()) / 1e6}, "stripped, as released; MB = 10^6 bytes")
	}
	return nil
}
