package target

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

func TestMain(m *testing.M) { fakenode.RunTests(m) }

// testNode is one fake node, reached through the fake ssh.
type testNode struct {
	*fakenode.Node
	t     *testing.T
	fleet *fakenode.Fleet
	shell remote.Shell
}

func newTestNode(t *testing.T) *testNode {
	f := fakenode.New(t)
	s := &testNode{Node: f.Node("compute-01"), t: t, fleet: f, shell: &remote.SSH{Program: f.SSH()}}
	for _, d := range product.Daemons {
		status := &systemd.Status{Version: systemd.StatusVersion, Renewal: &systemd.RenewalStatus{Enabled: true, Directory: d.RenewalDirectory()}}
		if d.Mounts {
			status.Mounts = new(systemd.MountStatus)
		}
		s.setStatus(d.Name, status)
	}
	return s
}

// setStatus sets the answer of a program to status -o json; nil: it is too old to answer.
func (s *testNode) setStatus(program string, status *systemd.Status) {
	s.t.Helper()
	path := "run/fake/answer." + program
	if status == nil {
		if err := os.Remove(filepath.Join(s.Root, path)); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	var data strings.Builder
	if err := text.JSON(&data, status); err != nil {
		s.t.Fatal(err)
	}
	s.Put(path, data.String(), 0o600)
}

// program returns a fake daemon. The fake systemctl runs it with "ready" to start it.
func program(version, ready string) string {
	return `#!/bin/sh
name=${0##*/}
units=$R/etc/systemd/system/$name
case $1 in
version) echo 'Version ` + version + `' ;;
ready) ` + ready + ` ;;
status) [ "$*" = 'status -o json' ] && [ -f "$R/run/fake/answer.$name" ] || { echo 'status takes no arguments' >&2; exit 2; }
  cat "$R/run/fake/answer.$name" ;;
install)
  [ ! -e "$units.service" ] || { echo 'Service has already been installed' >&2; exit 1; }
  printf '` + systemd.WrittenBy("%s") + `\nExecStart=/usr/bin/%s\n# ` + version + `\n' "$name" "$name" >"$units.service"
  ! grep -qx "$name" "$R/run/fake/sockets" || printf '` + systemd.WrittenBy("%s") + `\n' "$name" >"$units.socket"
  ;;
remove) systemctl stop "$name.service"; rm -f "$units.service" "$units.socket" ;;
esac
`
}

// bare returns programs of a version without packages.
func (s *testNode) bare(version, ready string) payload.Payload {
	s.t.Helper()
	var p payload.Payload
	dir := s.t.TempDir()
	for _, d := range product.Daemons {
		for _, name := range d.Programs() {
			f := s.file(filepath.Join(dir, name), program(version, ready))
			p.Programs = append(p.Programs, payload.Program{File: f, Name: name, Arch: "x86_64"})
		}
	}
	return p
}

// packages returns the packages of a version; line is inserted before their programs.
func (s *testNode) packages(version, ready, line string) payload.Payload {
	s.t.Helper()
	var p payload.Payload
	dir := s.t.TempDir()
	for _, name := range product.Names() {
		nevra, header := name+"-"+version+"-1.x86_64", "header-"+version
		f := s.file(filepath.Join(dir, name+".rpm"), name+" "+nevra+" "+header+"\n"+line+program(version, ready))
		p.Packages = append(p.Packages, payload.Package{File: f, Name: name, NEVRA: nevra, Arch: "x86_64", Header: header})
	}
	return p
}

func (s *testNode) file(path, text string) payload.File {
	s.t.Helper()
	if err := executable.Write(path, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
	return payload.File{Path: path, Size: int64(len(text)), Sum: sum([]byte(text))}
}

func wanted(p payload.Payload) *Want {
	return &Want{
		Node: "compute-01", Host: "10.0.0.5", Port: "6443", Payload: p, Ready: 5 * time.Second,
		Daemons: []Daemon{
			{Name: "clientmountd", Bin: "clientmountd", Token: []byte("token-1"), CA: []byte("ca-1")},
			{Name: "nnf-dm", Bin: "nnf-dm", Token: []byte("token-2"), CA: []byte("ca-2")},
		},
	}
}

// plan probes the node and returns the plan.
func (s *testNode) plan(w *Want) *Plan {
	s.t.Helper()
	r, err := Probe(s.t.Context(), s.shell, w)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := Diff(w, r)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *testNode) apply(w *Want) (*Outcome, error) {
	s.t.Helper()
	return Apply(s.t.Context(), s.t.Context(), s.shell, s.Name, s.plan(w), func(string) {})
}

// install applies the plan, which must succeed.
func (s *testNode) install(w *Want) *Outcome {
	s.t.Helper()
	o, err := s.apply(w)
	if err != nil {
		s.t.Fatalf("%v %+v\n%s", err, o, s.Get("var/lib/nnf-deploy/log"))
	}
	return o
}

// state describes all files that nnf-deploy may change.
func (s *testNode) state() string {
	var b strings.Builder
	files := s.Files("etc", "usr")
	for _, path := range sortedKeys(files) {
		b.WriteString(path + " " + files[path] + "\n")
	}
	return b.String()
}

// nothingStaged checks that no temporary file of a run is left.
func (s *testNode) nothingStaged() {
	s.t.Helper()
	for path := range s.Files("etc", "usr", "var") {
		if strings.Contains(path, ".nnf-deploy-") || strings.Contains(path, "/stage") || strings.HasSuffix(path, "/pending") {
			s.t.Errorf("left behind: %s", path)
		}
	}
}

// changes returns the changes of a plan, one per line.
func changes(p *Plan) string {
	var b strings.Builder
	for _, c := range p.Changes {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}
