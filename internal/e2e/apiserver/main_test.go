package apiserver

import (
	"flag"
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Scenes spend their time waiting, so many fit on a small machine.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "24")
	os.Exit(world.Main(m))
}

// TestMatrix plays all scenes side by side and then looks whether anything of
// any of them is left.
func TestMatrix(t *testing.T) {
	t.Run("scenes", func(t *testing.T) {
		for _, group := range []map[string]func(*env){
			budgetScenes, outageScenes, watchScenes, writeScenes, credentialScenes, rightScenes,
		} {
			for name, play := range group {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s := newEnv(t)
					play(s)
					s.finish()
				})
			}
		}
		t.Run("own server", func(t *testing.T) {
			t.Parallel()
			ownServer(t)
		})
	})
	world.New(t).NothingLeft()
}
