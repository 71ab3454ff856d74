package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

const (
	// resume is what the daemon may take after the server is back: its
	// longest delay is 30 s, and the machine may be busy.
	resume = 40 * time.Second
	// soon bounds what should take milliseconds.
	soon = 30 * time.Second
)

// scene is a node, a proxy before the API server, and a daemon.
type scene struct {
	*stage.Stage
	t      *testing.T
	proxy  *lab.Proxy // nil: the daemon speaks to the server itself
	daemon *lab.Daemon
	dir    string   // files of the scene
	token  string   // token file, which the scene may change
	cert   string   // certificate file, likewise
	mounts []string // ClientMounts that exist

	volumes int // made so far
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := bareScene(t, stage.New(t))
	s.useProxy()
	return s
}

// bareScene has no proxy.
func bareScene(t *testing.T, st *stage.Stage) *scene {
	t.Helper()
	s := &scene{Stage: st, t: t, dir: filepath.Join(st.Dir, "scene-"+st.Node)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.token, s.cert = s.Cluster.TokenFile(), s.Cluster.CertFile()
	s.UseProfile(lab.ProfileSpec{})
	return s
}

func (s *scene) useProxy() {
	s.t.Helper()
	p, err := lab.StartProxy(s.Cluster.URL, s.Cluster.CA())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = p.Close() })
	s.proxy = p
	s.cert = s.write("ca.pem", p.CA())
}

// write writes a file of the scene the way a site's tools do: at once.
func (s *scene) write(name string, data []byte) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// settings is a configuration file with these lines.
func (s *scene) settings(lines ...string) string {
	return "--config=" + s.write("config.toml", []byte("version = 1\n"+strings.Join(lines, "\n")+"\n"))
}

// launch starts the daemon and does not wait for anything.
func (s *scene) launch(flags ...string) {
	s.t.Helper()
	address, cert := "", ""
	if s.proxy != nil {
		address, cert = s.proxy.Address, s.cert
	}
	args := append(s.Flags(address, cert), "--service-token-file="+s.token)
	d, err := s.StartDaemon(lab.DaemonOptions{Args: append(args, flags...)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.daemon = d
	s.t.Cleanup(func() {
		d.Kill9()
		if s.t.Failed() {
			for _, line := range d.Log() {
				s.t.Log("daemon: ", strings.TrimSpace(line.Text))
			}
			for _, n := range d.Notices() {
				s.t.Log("notice: ", n.Time.Format("05.000"), n.Text)
			}
		}
	})
}

// start starts the daemon and waits until it is ready.
func (s *scene) start(flags ...string) {
	s.t.Helper()
	s.launch(flags...)
	s.ready(soon)
}

func (s *scene) ready(limit time.Duration) {
	s.t.Helper()
	if _, err := s.daemon.WaitReady(s.Context(limit)); err != nil {
		s.t.Fatal("the daemon does not become ready: ", err)
	}
}

// notReady fails when the daemon has said READY.
func (s *scene) notReady() {
	s.t.Helper()
	for _, n := range s.daemon.Notices() {
		if _, yes := n.Value("READY"); yes {
			s.t.Fatal("READY although the objects of the node are not known")
		}
	}
}

// ask makes a volume and a ClientMount that wants it mounted, and returns the
// name of both.
func (s *scene) ask() string {
	s.t.Helper()
	index := s.volumes
	s.volumes++
	name := fmt.Sprintf("m%d", index)
	s.Volume(index, lab.VolumeOptions{})
	s.Mount(name, lab.MountSpec{Path: s.Path(name), Type: "xfs", Index: index})
	s.mounts = append(s.mounts, name)
	return name
}

// mounted asks for a mount and waits until it is there, and until the daemon
// itself knows that the server knows.
func (s *scene) mounted() string {
	s.t.Helper()
	name := s.ask()
	s.Await(name, "mounted")
	s.settled(name)
	s.isMounted(name, true)
	return name
}

// isMounted looks at the kernel's table.
func (s *scene) isMounted(name string, want bool) {
	s.t.Helper()
	m, ok, err := s.MountAt(s.Path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	if ok != want || ok && m.Type != "xfs" {
		s.t.Fatalf("%s: mounted is %v, want %v (%+v)", name, ok, want, m)
	}
}

// remove deletes a ClientMount without waiting.
func (s *scene) remove(name string) {
	s.t.Helper()
	if err := s.Cluster.Delete(s.Context(soon), "ClientMount", s.Node, name); err != nil {
		s.t.Fatal(err)
	}
}

// finish is the end of every scene: the daemon lives, serves a last mount's
// life, ends well, and nothing is left.
func (s *scene) finish() {
	s.t.Helper()
	if s.daemon == nil {
		return
	}
	select {
	case <-s.daemon.Done():
		s.t.Fatal("the daemon has died")
	default:
	}
	if len(s.mounts) == 0 {
		s.mounted()
	}
	for _, name := range s.mounts {
		s.Delete(name)
		s.isMounted(name, false)
	}
	if err := s.daemon.Term(); err != nil {
		s.t.Fatal(err)
	}
	if code, err := s.daemon.Wait(s.Context(soon)); code != 0 || err != nil {
		s.t.Fatalf("exit code %d, %v", code, err)
	}
	for _, line := range s.daemon.Log() {
		if line.Fields == nil || strings.Contains(line.Text, "panic") {
			s.t.Errorf("in the log: %s", line.Text)
		}
	}
	if records, err := filepath.Glob(filepath.Join(s.Runtime, "*.json")); err != nil || len(records) > 0 {
		s.t.Errorf("records left behind: %v %v", records, err)
	}
	left, err := s.Leftovers()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range left {
		if strings.Contains(l, s.Base+"/") || strings.Contains(strings.ReplaceAll(l, "--", "-"), s.Owner) {
			s.t.Error("left behind: ", l)
		}
	}
}

// calls counts the runs of a tool for a mount.
func (s *scene) calls(tool, name string) (n int) {
	s.t.Helper()
	calls, err := s.Log()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range calls {
		if c.Tool == tool && slices.Contains(c.Argv, s.Path(name)) {
			n++
		}
	}
	return n
}

// onceMounted fails unless exactly one command mounted it.
func (s *scene) onceMounted(name string) {
	s.t.Helper()
	if n := s.calls("mount", name); n != 1 {
		s.t.Errorf("%d mount commands for %s", n, name)
	}
}

// eventually waits for something that cannot be waited on.
func (s *scene) eventually(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	ctx := s.Context(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
