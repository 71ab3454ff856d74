package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/sshd"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// keys creates the keys of a host and of an administrator.
func (s *testFleet) keys() {
	s.t.Helper()
	for _, key := range []string{"host", "key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.bin, key)).CombinedOutput(); err != nil {
			s.t.Fatalf("%v: %s", err, out)
		}
	}
}

// sshConfig writes an ssh_config with these sections of hosts and more options for all of them, and
// returns its path.
func (s *testFleet) sshConfig(hosts string, more ...string) string {
	s.t.Helper()
	me, err := user.Current()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("ssh_config", hosts+fmt.Sprintf(`Host *
  User %s
  IdentityFile %s/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
`, me.Username, s.bin)+strings.Join(more, ""))
	return filepath.Join(s.bin, "ssh_config")
}

// system writes a SystemConfiguration with count nodes.
func (s *testFleet) system(count int) {
	s.t.Helper()
	text := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for i := range count {
		text += fmt.Sprintf("  - name: compute-%03d\n", i+1)
	}
	s.write("system.yaml", text)
}

// statusCommand returns "nnf-deploy status" for the nodes of the SystemConfiguration. Its time
// limits must be long, because all nodes and their logins share the processors of this machine.
func (s *testFleet) statusCommand(config string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, deploy.Name), append([]string{"status", "-o", "json",
		"--ssh-option", "-F" + config, "--system-config", filepath.Join(s.bin, "system.yaml")}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.bin}
	return cmd
}

// allAnswer checks that the command has run, and that each of the nodes answers.
func allAnswer(t *testing.T, err error, out []byte, errs fmt.Stringer, nodes int) {
	t.Helper()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) { // exit code 1, because nothing is installed
		t.Fatal(err)
	}
	var answer struct {
		Nodes []struct {
			Node, Cause string
			Answers     bool
		}
	}
	if err := json.Unmarshal(out, &answer); err != nil || len(answer.Nodes) != nodes {
		t.Fatalf("%d nodes, %v\n%s", len(answer.Nodes), err, errs)
	}
	for _, n := range answer.Nodes {
		if !n.Answers {
			t.Errorf("%s: %s", n.Node, n.Cause)
		}
	}
}

// startSSHD runs a real sshd with its default settings on a loopback port. Each
// login runs its command on the node of this name. It returns what nnf-deploy
// needs to reach the sshd under any name, and the server's log.
func startSSHD(t *testing.T, s *testFleet, node string) (config string, port int, log func() string) {
	t.Helper()
	const program = "/usr/sbin/sshd"
	require.Tool(t, "/usr/sbin/sshd", "ssh", "ssh-keygen")
	sshd.Directory(t)
	s.keys()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	s.write("sshd_config", fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/key.pub
StrictModes no
LoginGraceTime 0
UsePAM no
PermitRootLogin yes
PidFile none
LogLevel VERBOSE
ForceCommand %[3]s=%[4]s exec %[2]s/fakessh -- %[5]s "$SSH_ORIGINAL_COMMAND"
`, port, s.bin, fakenode.Variable, s.fleet.Dir, node))
	config = s.sshConfig(fmt.Sprintf("Host *\n  HostName 127.0.0.1\n  Port %d\n", port))
	server := exec.Command(program, "-D", "-e", "-f", filepath.Join(s.bin, "sshd_config"))
	path := filepath.Join(s.bin, "sshd.log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	server.Stderr = file
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	log = func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	wait.Until(t, "sshd to listen", func() bool { return strings.Contains(log(), "Server listening") })
	return config, port, log
}

// sshd closes connections when ten logins or more are unfinished (MaxStartups 10:30:100).
// With the default of --parallel, all of 24 nodes with the same sshd still answer.
func TestManyNodesWithOneSSHD(t *testing.T) {
	const nodes = 24
	s := newTestFleet(t, 1)
	config, port, log := startSSHD(t, s, "compute-01")
	s.system(nodes)
	// Connections of other clients that do not log in, so that sshd closes connections even if
	// each login is fast.
	for range 9 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil { // it has been accepted
			t.Fatal(err)
		}
	}
	cmd := s.statusCommand(config, "--connect-timeout", "2m", "--node-timeout", "9m")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	started := time.Now()
	err := cmd.Run()
	allAnswer(t, err, out.Bytes(), &errs, nodes)
	// sshd logs "drop connection #N from [...]". Newer versions log a number for the next seconds.
	dropped := strings.Count(log(), "drop connection")
	if dropped == 0 {
		t.Error("sshd has not closed any connection, so the test is meaningless")
	}
	t.Logf("%d nodes in %.1f s; sshd has logged closed connections %d times", nodes, time.Since(started).Seconds(), dropped)
}
