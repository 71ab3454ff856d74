package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// daemon is a fake daemon that needs some time to become ready, and records the token with
// which it was started.
const daemon = `#!/bin/sh
case $1 in
version) echo 'Version v1' ;;
ready) cat "$R/etc/${0##*/}/service.token" >"$R/run/fake/started.${0##*/}"; sleep 0.3 ;;
esac
`

// testFleet is a fleet with both daemons installed, and nnf-deploy with its input files.
type testFleet struct {
	t     *testing.T
	fleet *fakenode.Fleet
	nodes []*fakenode.Node
	bin   string
	args  []string
}

func newTestFleet(t *testing.T, count int) *testFleet {
	t.Helper()
	s := &testFleet{t: t, fleet: fakenode.New(t), bin: t.TempDir()}
	exe, err := os.Executable()
	for _, name := range []string{deploy.Name, "fakessh"} {
		err = errors.Join(err, os.Symlink(exe, filepath.Join(s.bin, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	system := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for i := range count {
		n := s.fleet.Node(fmt.Sprintf("compute-%02d", i+1))
		for _, d := range product.Daemons {
			n.Put(product.Path(d.Name), daemon, 0o755)
			for _, unit := range d.Units() {
				n.Put(product.PackageDirectory+"/"+unit, "[Unit]\n", 0o644)
			}
		}
		s.nodes = append(s.nodes, n)
		system += "  - name: " + n.Name + "\n"
	}
	s.write("system.yaml", system)
	s.args = []string{"install", "--no-programs", "--ssh", filepath.Join(s.bin, "fakessh"), "--system-config", filepath.Join(s.bin, "system.yaml"),
		"--credentials", filepath.Join(s.bin, "credentials"), "--kubernetes-service-host", "api", "--kubernetes-service-port", "6443"}
	return s
}

func (s *testFleet) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.bin, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		s.t.Fatal(err)
	}
}

// credentials sets the credentials that the next run installs.
func (s *testFleet) credentials(word string) {
	for _, d := range product.Names() {
		s.write("credentials/"+d+"/"+product.TokenFile, word)
		s.write("credentials/"+d+"/"+product.CertFile, word)
	}
}

func (s *testFleet) command(more ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(filepath.Join(s.bin, deploy.Name), append(s.args, more...)...)
	cmd.Env = []string{fakenode.Variable + "=" + s.fleet.Dir, "PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// consistent checks that all credentials of a node contain the same one of these words, that
// its daemons run with them, and that no temporary file of the run is left.
func (s *testFleet) consistent(n *fakenode.Node, words ...string) (word string) {
	s.t.Helper()
	word = n.Get("etc/clientmountd/service.token")
	if !strings.Contains(" "+strings.Join(words, " ")+" ", " "+word+" ") {
		s.t.Errorf("%s has %q", n.Name, word)
	}
	for _, path := range []string{"etc/clientmountd/service.cert", "etc/nnf-dm/service.token", "etc/nnf-dm/service.cert", "run/fake/started.clientmountd", "run/fake/started.nnf-dm"} {
		if got := n.Get(path); got != word {
			s.t.Errorf("%s: %s contains %q, the token of clientmountd %q", n.Name, path, got, word)
		}
	}
	for path := range n.Files("etc", "var", "usr") {
		if strings.Contains(path, ".nnf-deploy-") || strings.Contains(path, "/stage") || strings.HasSuffix(path, "/pending") {
			s.t.Errorf("%s: left behind: %s", n.Name, path)
		}
	}
	return word
}

// settle waits until all switches have finished.
func (s *testFleet) settle() {
	s.t.Helper()
	for _, n := range s.nodes {
		lock := filepath.Join(n.Root, "var/lib/nnf-deploy/lock")
		if _, err := os.Stat(lock); err == nil {
			if out, err := exec.Command("flock", "-w", "30", lock, "true").CombinedOutput(); err != nil {
				s.t.Fatalf("%s stays locked: %v %s", n.Name, err, out)
			}
		}
	}
}

// Whenever and however often nnf-deploy is interrupted, and even if it is killed, each node has
// either the old or the new credentials, and the next run installs the new ones on all nodes.
func TestInterrupted(t *testing.T) {
	s := newTestFleet(t, 6)
	s.credentials("old")
	if cmd, out := s.command(); cmd.Run() != nil {
		t.Fatal(out)
	}
	for i, tt := range []struct {
		after time.Duration
		sends []syscall.Signal
		exit  int
	}{
		{50 * time.Millisecond, []syscall.Signal{syscall.SIGINT}, 130},
		{400 * time.Millisecond, []syscall.Signal{syscall.SIGINT}, 130},
		{800 * time.Millisecond, []syscall.Signal{syscall.SIGTERM}, 143},
		{600 * time.Millisecond, []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, 130},
		{500 * time.Millisecond, []syscall.Signal{syscall.SIGKILL}, -1},
		{900 * time.Millisecond, []syscall.Signal{syscall.SIGKILL}, -1},
	} {
		was, word := "old", fmt.Sprint("new-", i)
		if i > 0 {
			was = fmt.Sprint("new-", i-1)
		}
		s.credentials(word)
		cmd, out := s.command("--parallel", "2")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tt.after) // no event to wait for: the signal comes at an arbitrary time
		for _, sig := range tt.sends {
			_ = cmd.Process.Signal(sig)       // the process may have exited
			time.Sleep(30 * time.Millisecond) // so that the kernel does not merge two signals
		}
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if ended := cmd.ProcessState.Sys().(syscall.WaitStatus); ended.Signaled() && ended.Signal() == tt.sends[0] && out.Len() == 0 {
			code = tt.exit // on a busy machine, the signal can arrive before main runs
		}
		if code != tt.exit && code != 0 {
			t.Errorf("%v after %v: exit code %d\n%s", tt.sends, tt.after, code, out)
		}
		s.settle()
		count := map[string]int{}
		for _, n := range s.nodes {
			count[s.consistent(n, was, word)]++
		}
		t.Logf("%v after %v: %v", tt.sends, tt.after, count)
		if cmd, out := s.command(); cmd.Run() != nil {
			t.Fatal(out)
		}
		for _, n := range s.nodes {
			s.consistent(n, word)
		}
		if t.Failed() {
			t.Fatalf("%s", out)
		}
	}
}

// Ctrl-C prints its effect, and the table has all nodes.
func TestInterruptedOutput(t *testing.T) {
	s := newTestFleet(t, 4)
	s.credentials("old")
	s.nodes[0].Fault("slow 1500")
	cmd, out := s.command("--parallel", "1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the connection to the first node", func() bool { return s.fleet.Calls() > 0 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, want := range []string{
		"nnf-deploy: interrupted: starting no further node, waiting for nodes that are switching; interrupt again to stop waiting\n",
		"compute-01  interrupted  ", "compute-04  skipped      -     not started: interrupted\n",
		"nnf-deploy: 4 nodes: 1 interrupted before any change, 3 not started\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
}

// nnf-deploy reports an error if another tool reverts the installation.
func TestReverted(t *testing.T) {
	s := newTestFleet(t, 2)
	s.credentials("old")
	if cmd, out := s.command(); cmd.Run() != nil {
		t.Fatal(out)
	}
	s.nodes[1].Put("usr/bin/nnf-dm", strings.Replace(daemon, "sleep 0.3", `printf another >"$R/etc/clientmountd/service.token"`, 1), 0o755)
	s.credentials("new")
	cmd, out := s.command()
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"compute-01  ok      ",
		"the installation succeeded, but the check after it failed: the node differs again: replace /etc/clientmountd/service.token (check whether another tool manages this node)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
