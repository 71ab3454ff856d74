package dmapiserver

import (
	"flag"
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Scenes spend their time waiting, so many fit on a small machine.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16")
	os.Exit(world.Main(m))
}

// TestMatrix plays all scenes side by side.
func TestMatrix(t *testing.T) {
	for _, group := range []map[string]func(*env){outageScenes, watchScenes, answerScenes, credentialScenes, lifeScenes} {
		for name, play := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newEnv(t)
				play(s)
				s.finish()
			})
		}
	}
}
