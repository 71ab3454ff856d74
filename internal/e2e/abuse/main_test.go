package abuse

import (
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/copyjob"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVar); socket != "" {
		os.Exit(actAsUser(socket, os.Stdin, os.Stdout))
	}
	os.Exit(stage.Main(m))
}

const (
	alice = 1001
	bob   = 1002
)

// scene is a node with a proxy before the API server, the daemon, and two users
// with a job each.
type scene struct {
	*copyjob.Compute
	t              *testing.T
	proxy          *lab.Proxy
	daemon         *lab.Daemon
	alice, bob     *user
	hers, his      *copyjob.Job
	configuration  string
	address, chain string
}

// newScene starts all. lines are further lines of the daemon's configuration.
func newScene(t *testing.T, lines string) *scene {
	t.Helper()
	s := &scene{Compute: copyjob.On(t, stage.New(t)), t: t}
	if os.Geteuid() != 0 || os.Getenv("LAB_USER_NAMESPACE") != "" {
		t.Skip("not run: other users are played by root of the machine only")
	}
	s.hers, s.his = s.Job("hers-"+s.Node, alice, 0, 1, 10), s.Job("his-"+s.Node, bob, 0)
	s.proxy, s.address, s.chain = s.UseProxy()
	s.configuration = s.Write("config.toml", []byte("version = 1\n"+lines))
	s.daemon = s.Start(s.address, s.chain, "--config="+s.configuration)
	s.alice, s.bob = newUser(t, s.Socket, alice), newUser(t, s.Socket, bob)
	return s
}
