package crash

import (
	"testing"
)

// The API server is killed together with the daemon. The daemon that follows
// starts before the server is back and finds everything as it was.
func TestServerDiesToo(t *testing.T) {
	s := newSet(t, kinds[0])
	for _, tt := range []struct {
		phase    phase
		boundary string
	}{
		{mountPhase, "mount/0/mount/mounted"},
		{unmountPhase, "status/write"},
		{deletePhase, "finalizers/write"},
	} {
		t.Run(tt.phase.name, func(t *testing.T) {
			l := s.life(t)
			tt.phase.before(l)
			l.start(tt.boundary)
			l.dies()
			if err := l.Cluster.Kill(); err != nil {
				t.Fatal(err)
			}
			l.start("")
			if err := l.Cluster.Restart(l.Context(2 * patience)); err != nil {
				t.Fatal(err)
			}
			tt.phase.reach(l)
			if n := l.attempts(); n > reconcilesAfterRestart {
				t.Errorf("the goal was reached after %d attempts", n)
			}
			tt.phase.end(l)
		})
	}
}
