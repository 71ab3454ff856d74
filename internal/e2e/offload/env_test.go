package offload

import (
	"context"
	"strings"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 60 * time.Second

// env is one workflow of alice on one compute of one rabbit, all of its own.
type env struct {
	*world.World
	t        *testing.T
	k        *kind
	job      string // name of the workflow, in namespace default
	uid      string // its metadata.uid
	path     string // where its storage is mounted on the compute
	onRabbit string // and on the rabbit
	config   string // the daemon's configuration file has this

	d   *lab.Process
	me  pb.DataMoverClient // alice
	me2 pb2.DataMoverClient
}

func newEnv(t *testing.T, k *kind) *env {
	t.Helper()
	s := &env{World: world.New(t), t: t, k: k}
	s.job = "job-" + strings.TrimPrefix(s.Node, "compute-")
	s.UseProxy()
	s.Namespace(s.Rabbit)
	return s
}

// usual sets up what a job finds, and starts the daemon.
func (s *env) usual() {
	s.t.Helper()
	s.system()
	s.workflow(nil)
	s.mounts()
	s.start()
}

func (s *env) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *env) ctx() context.Context { return s.Context(patience) }

// start runs the released daemon; a later flag wins.
func (s *env) start(flags ...string) {
	s.t.Helper()
	s.startWith(s.spec(flags...))
}

// spec is that of the daemon with the configuration of this test.
func (s *env) spec(flags ...string) lab.Spec {
	config := s.Write("config.toml", []byte(s.config))
	return s.Spec(lab.Spec{Program: "nnf-dm", Args: append([]string{"--config=" + config}, flags...)})
}

// startWith starts the daemon and waits until it is ready.
func (s *env) startWith(spec lab.Spec) {
	s.t.Helper()
	s.launch(spec)
	s.Ready(s.d)
	s.me, s.me2 = s.as(alice), s.as2(alice)
}

func (s *env) launch(spec lab.Spec) {
	s.t.Helper()
	s.d = lab.Start(s.t, s.Lab, spec)
}

// same compares texts and says what they are about.
func (s *env) same(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// records counts the audit records of refusals that have all the texts.
func (s *env) records(texts ...string) (n int) {
	for _, line := range s.d.Log() {
		all := line.Fields["msg"] == "refused"
		for _, text := range texts {
			all = all && strings.Contains(line.Text, text)
		}
		if all {
			n++
		}
	}
	return n
}
