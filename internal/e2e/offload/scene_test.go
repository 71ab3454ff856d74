package offload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 60 * time.Second

// scene is one workflow of alice on one compute of one rabbit, all of its own.
type scene struct {
	*stage.Stage
	t        *testing.T
	k        *kind
	rabbit   string // name and namespace
	job      string // name of the workflow, in namespace default
	uid      string // its metadata.uid
	path     string // where its storage is mounted on the compute
	onRabbit string // and on the rabbit
	config   string // the daemon's configuration file has this

	dir    string // that every user can reach
	socket string
	proxy  *lab.Proxy // between the daemon and the API server
	d      *lab.Daemon
	me     pb.DataMoverClient // alice
	me2    pb2.DataMoverClient
}

func newScene(t *testing.T, k *kind) *scene {
	t.Helper()
	s := &scene{Stage: stage.New(t), t: t, k: k}
	number := strings.TrimPrefix(s.Node, "compute-")
	s.rabbit, s.job = "rabbit-"+number, "job-"+number
	s.dir = openDirectory(t, s.Stage)
	s.socket = filepath.Join(s.dir, "nnf-dm.sock")
	var err error
	s.proxy, err = lab.StartProxy(s.Cluster.URL, s.Cluster.CA())
	s.must(err)
	t.Cleanup(func() { _ = s.proxy.Close() })
	s.namespace(s.rabbit)
	return s
}

// openDirectory makes one that every user can reach. It goes with the
// laboratory, also when that is ended by force.
func openDirectory(t *testing.T, s *stage.Stage) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.Dir, "offload-")
	if err == nil {
		err = errors.Join(os.Chmod(s.Dir, 0o711), os.Chmod(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// usual sets up what a job finds, and starts the daemon.
func (s *scene) usual() {
	s.t.Helper()
	s.system()
	s.workflow(nil)
	s.mounts()
	s.start()
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) ctx() context.Context { return s.Context(patience) }

// flags are those with which the daemon finds the API server through the proxy.
func (s *scene) flags() []string {
	cert, config := filepath.Join(s.dir, "ca.pem"), filepath.Join(s.dir, "config.toml")
	s.must(os.WriteFile(cert, s.proxy.CA(), 0o600))
	s.must(os.WriteFile(config, []byte(s.config), 0o600))
	args := []string{"--socket=" + s.socket, "--sys-config=" + s.Node}
	for _, f := range s.Flags(s.proxy.Address, cert) {
		switch {
		case strings.HasPrefix(f, "--runtime-directory"), strings.HasPrefix(f, "--mount-namespace"):
		case strings.HasPrefix(f, "--config"):
			args = append(args, "--config="+config)
		default:
			args = append(args, strings.Replace(f, "/clientmountd/service.token", "/nnf-dm/service.token", 1))
		}
	}
	return args
}

// start runs the released daemon; a later flag wins.
func (s *scene) start(flags ...string) {
	s.t.Helper()
	s.launch(lab.DaemonOptions{Binary: binary(s.t), Args: append(s.flags(), flags...)})
	if _, err := s.d.WaitReady(s.ctx()); err != nil {
		s.t.Fatal("the daemon does not become ready: ", err)
	}
	s.me, s.me2 = s.as(alice), s.as2(alice)
}

func binary(t testing.TB) string { return filepath.Join(stage.Root(t), "bin", "nnf-dm") }

func (s *scene) launch(o lab.DaemonOptions) {
	s.t.Helper()
	d, err := s.StartDaemon(o)
	s.must(err)
	s.d = d
	s.t.Cleanup(func() {
		defer d.Kill9()
		select {
		case <-d.Done():
		default:
			s.quits(d)
		}
		if s.t.Failed() {
			for _, line := range d.Log() {
				s.t.Log("daemon: ", line.Text)
			}
		}
	})
}

// quits is the end of every scene: the daemon goes when it is asked to, and no
// request has ended in a panic.
func (s *scene) quits(d *lab.Daemon) {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own has ended
	defer cancel()
	if err := d.Term(); err != nil {
		s.t.Error(err)
	}
	if code, err := d.Wait(ctx); code != 0 || err != nil {
		s.t.Errorf("the daemon's exit code is %d, %v", code, err)
	}
	for _, line := range d.Log() {
		if strings.Contains(line.Text, "panic") {
			s.t.Error("a panic: ", line.Text)
		}
	}
}

// eventually asks again until it is so.
func (s *scene) eventually(what string, so func() bool) {
	s.t.Helper()
	for limit := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			s.t.Fatal("it does not come to this: ", what)
		}
	}
}

// same compares texts and says what they are about.
func (s *scene) same(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// records counts the audit records of refusals that have all the texts.
func (s *scene) records(texts ...string) (n int) {
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
