package fleet

import (
	"fmt"
	"path/filepath"
	"strings"
)

// The server: one process for each connection, as with socket activation. What
// a session has started lives on after it, as it does behind a listening sshd.
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

// furnish gives a node its sshd, and a line to it.
func (f *Fleet) furnish(n *Node) (err error) {
	n.hostKey = f.keygen("host-" + n.Name)
	n.Put("/etc/ssh/e2e/host_key", 0o600, []byte(f.read("host-"+n.Name)+"\n"))
	n.Put("/etc/ssh/e2e/authorized_keys", 0o644, []byte(f.read("key.pub")+"\n"))
	n.Put("/etc/ssh/e2e/sshd_config", 0o644, []byte(sshdConfig))
	n.Put("/etc/systemd/system/e2e-ssh.socket", 0o644, []byte(sshdSocket))
	n.Put("/etc/systemd/system/e2e-ssh@.service", 0o644, []byte(sshdService))
	// alice is who may become root without a password.
	n.Put("/etc/sudoers.d/alice", 0o440, []byte("alice ALL=(ALL) NOPASSWD: ALL\n"))
	n.Do("systemctl daemon-reload && systemctl -q enable --now e2e-ssh.socket")
	if n.line, err = newLine(filepath.Join(n.Exchange, "ssh.sock")); err != nil {
		return err
	}
	f.t.Cleanup(func() {
		if err := n.line.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return nil
}

// SessionsEndWithAll makes the node's sshd one behind which systemd ends all
// that a session has started when its connection ends.
func (n *Node) SessionsEndWithAll() {
	n.Put("/etc/systemd/system/e2e-ssh@.service.d/kill.conf", 0o644, []byte("[Service]\nKillMode=control-group\n"))
	n.Do("systemctl daemon-reload")
}

// writeConfig writes what the administrator's ssh knows of the nodes. The
// names of nodes mean nothing to anybody else.
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

// writeKnownHosts writes the keys of the nodes; of those that are named, the
// key is one that the node does not have.
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

// WrongHostKeys makes the administrator's ssh know other keys of the nodes,
// until the end of the test.
func (f *Fleet) WrongHostKeys(nodes ...*Node) {
	f.t.Helper()
	f.writeKnownHosts(nodes...)
	f.t.Cleanup(func() { f.writeKnownHosts() })
}
