package abuse

import (
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVar); socket != "" {
		os.Exit(actAsUser(socket, os.Stdin, os.Stdout))
	}
	os.Exit(world.Main(m))
}

const (
	alice = 1001
	bob   = 1002
)

// env is a node with a proxy in front of the API server, nnf-dm, and two users with
// a job each.
type env struct {
	*world.World
	t             *testing.T
	daemon        *lab.Process
	alice, bob    *user
	hers, his     *world.Job
	configuration string
}

// newEnv starts all. lines are further lines of the daemon's configuration.
func newEnv(t *testing.T, lines string) *env {
	t.Helper()
	s := &env{World: world.New(t), t: t}
	if os.Geteuid() != 0 || s.Features.UserNamespace {
		t.Skip("not run: only root can start processes of other users")
	}
	s.Site()
	s.hers, s.his = s.Job("hers-"+s.Node, alice, 0, 1, 10), s.Job("his-"+s.Node, bob, 0)
	s.UseProxy()
	s.configuration = s.Write("config.toml", []byte("version = 1\n"+lines))
	s.daemon = s.StartMover("--config=" + s.configuration)
	s.alice, s.bob = newUser(t, s.Socket, alice), newUser(t, s.Socket, bob)
	return s
}
