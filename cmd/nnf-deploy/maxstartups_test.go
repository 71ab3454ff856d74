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
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// startSSHD runs a real sshd with its default settings on a loopback port. Each
// login runs its command on the node of this name. It returns what nnf-deploy
// needs to reach the sshd under any name, and the server's log.
func startSSHD(t *testing.T, s *testFleet, node string) (config string, port int, log func() string) {
	t.Helper()
	const sshd = "/usr/sbin/sshd"
	for _, tool := range []string{sshd, "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("E2E_REQUIRE") != "" {
				t.Fatal(err)
			}
			t.Skip("apt-get install openssh-server: ", err)
		}
	}
	if os.Geteuid() == 0 { // sshd needs it where systemd does not start it
		if err := os.Mkdir("/run/sshd", 0o755); err == nil {
			t.Cleanup(func() { _ = os.Remove("/run/sshd") })
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"host", "key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.bin, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
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
UsePAM no
PermitRootLogin yes
PidFile none
LogLevel VERBOSE
ForceCommand %[3]s=%[4]s exec %[2]s/fakessh -- %[5]s "$SSH_ORIGINAL_COMMAND"
`, port, s.bin, fakenode.Variable, s.fleet.Dir, node))
	s.write("ssh_config", fmt.Sprintf(`Host *
  HostName 127.0.0.1
  Port %d
  User %s
  IdentityFile %s/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
`, port, me.Username, s.bin))
	server := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(s.bin, "sshd_config"))
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
	return filepath.Join(s.bin, "ssh_config"), port, log
}

// sshd closes connections when more than ten logins are unfinished (MaxStartups
// 10:30:100). All of 40 nodes behind one sshd answer nevertheless, with the default
// of --parallel.
func TestFortyNodesBehindOneSSHD(t *testing.T) {
	const nodes = 40
	s := newTestFleet(t, 1)
	config, port, log := startSSHD(t, s, "compute-01")
	system := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for i := range nodes {
		system += fmt.Sprintf("  - name: compute-%02d\n", i+1)
	}
	s.write("system.yaml", system)
	// Connections of others that do not log in, so that connections are closed even
	// where each login is quick.
	for range 7 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil { // it has been accepted
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(s.bin, deploy.Name), "status", "-o", "json", "--ssh-option", "-F"+config, "--system-config", filepath.Join(s.bin, "system.yaml"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.bin}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) { // nothing is installed there: not well
		t.Fatal(err)
	}
	var answer struct {
		Nodes []struct {
			Node, Cause string
			Answers     bool
		}
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || len(answer.Nodes) != nodes {
		t.Fatalf("%d nodes, %v\n%s", len(answer.Nodes), err, &errs)
	}
	for _, n := range answer.Nodes {
		if !n.Answers {
			t.Errorf("%s: %s", n.Node, n.Cause)
		}
	}
	// sshd logs "drop connection #N from [...]"; newer ones count those of the next seconds.
	dropped := strings.Count(log(), "drop connection")
	if dropped == 0 {
		t.Error("sshd has closed no connection: the test shows nothing")
	}
	t.Logf("%d nodes in %.1f s; sshd reports closed connections %d times", nodes, time.Since(began).Seconds(), dropped)
}
