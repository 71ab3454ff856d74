package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// Result is the result of a program that the administrator has run.
type Result struct {
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

// environment returns the environment of the administrator's programs. It is independent of
// the environment of the test.
func (f *Fleet) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.Dir, "KUBECONFIG=" + f.Kubeconfig, "LC_ALL=C.UTF-8", "TMPDIR=" + f.Dir}
}

// Command returns a command in the administrator's environment.
func (f *Fleet) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = f.environment(), f.Dir
	cmd.WaitDelay = 20 * time.Second // a process that keeps the output open must not block the test
	return cmd
}

// Run runs a program until it exits.
func (f *Fleet) Run(stdin io.Reader, name string, args ...string) Result {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := f.Command(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	started := time.Now()
	err := f.Fixture.Run(cmd)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		f.t.Fatalf("%s: %v\n%s%s", name, err, &out, &errs)
	}
	return Result{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(started)}
}

// Config returns the path of the administrator's ssh_config.
func (f *Fleet) Config() string { return filepath.Join(f.Dir, "ssh_config") }

// SSH runs a command on a node with the administrator's ssh.
func (f *Fleet) SSH(n *Node, command string) Result {
	f.t.Helper()
	return f.Run(nil, "ssh", "-F", f.Config(), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", n.Name, command)
}

// The sshd of a node is socket-activated, with one process per connection. Processes that a
// session has started keep running after the session, as with a listening sshd.
const (
	sshdConfig = `HostKey /etc/ssh/e2e/host_key
AuthorizedKeysFile /etc/ssh/e2e/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
`
	sshdSocket = `[Unit]
Description=End-to-end test: the socket of sshd
[Socket]
ListenStream=/run/e2e/ssh.sock
Accept=yes
[Install]
WantedBy=sockets.target
`
	sshdService = `[Unit]
Description=End-to-end test: sshd for one connection
CollectMode=inactive-or-failed
[Service]
ExecStart=-/usr/sbin/sshd -i -e -f /etc/ssh/e2e/sshd_config
StandardInput=socket
StandardError=journal
RuntimeDirectory=sshd
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
KillMode=process
`
)

// sshd returns the files of a node with which the administrator can log in.
func (f *Fleet) sshd(node string) []machine.File {
	f.t.Helper()
	f.keygen("host-" + node)
	return []machine.File{
		{Path: "/etc/ssh/e2e/host_key", Mode: 0o600, Text: f.read("host-"+node) + "\n"},
		{Path: "/etc/ssh/e2e/authorized_keys", Mode: 0o644, Text: f.read("key.pub") + "\n"},
		{Path: "/etc/ssh/e2e/sshd_config", Mode: 0o644, Text: sshdConfig},
		{Path: "/etc/systemd/system/e2e-ssh.socket", Mode: 0o644, Text: sshdSocket},
		{Path: "/etc/systemd/system/e2e-ssh@.service", Mode: 0o644, Text: sshdService},
		{Path: "/etc/systemd/system/sockets.target.wants/e2e-ssh.socket", Mode: fs.ModeSymlink, Text: "../e2e-ssh.socket"},
		// alice can become root without a password.
		{Path: "/etc/sudoers.d/alice", Mode: 0o440, Text: "alice ALL=(ALL) NOPASSWD: ALL\n"},
	}
}

// connect creates the line to a node.
func (f *Fleet) connect(m *machine.Machine) *Node {
	f.t.Helper()
	l, err := newLine(filepath.Join(m.Exchange, "ssh.sock"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return &Node{Machine: m, line: l, hostKey: f.read("host-" + m.Name + ".pub")}
}

// KillSessionProcesses configures systemd on the node to kill all processes of an ssh session
// when its connection ends, as logind does with KillUserProcesses=yes.
func (n *Node) KillSessionProcesses() {
	n.Put("/etc/systemd/system/e2e-ssh@.service.d/kill.conf", 0o644, []byte("[Service]\nKillMode=control-group\nTimeoutStopSec=1s\n"))
	n.Do("systemctl daemon-reload")
}

// writeConfig writes the administrator's ssh_config. The names of the nodes can only be
// resolved with it.
func (f *Fleet) writeConfig() {
	f.t.Helper()
	var b strings.Builder
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "Host %s\n  Port %d\n  HostKeyAlias %[1]s\n", n.Name, n.line.port)
	}
	fmt.Fprintf(&b, `Host *
  HostName 127.0.0.1
  User root
  IdentityFile %[1]s/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile %[1]s/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  LogLevel ERROR
`, f.Dir)
	f.write("ssh_config", 0o600, b.String())
}

// writeKnownHosts writes the host keys of the nodes to known_hosts. The nodes in wrong get a
// wrong key.
func (f *Fleet) writeKnownHosts(wrong ...*Node) {
	f.t.Helper()
	keys := map[string]string{}
	for _, n := range f.Nodes {
		keys[n.Name] = n.hostKey
	}
	for _, n := range wrong {
		keys[n.Name] = f.read("key.pub")
	}
	var b strings.Builder
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "%s %s\n", n.Name, keys[n.Name])
	}
	f.write("known_hosts", 0o600, b.String())
}

// WrongHostKeys writes wrong keys of these nodes to known_hosts, until the end of the test.
func (f *Fleet) WrongHostKeys(nodes ...*Node) {
	f.t.Helper()
	f.writeKnownHosts(nodes...)
	f.t.Cleanup(func() { f.writeKnownHosts() })
}
