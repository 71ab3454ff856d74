package fleet

import (
	"strings"
	"testing"
)

// An administrator who may not log in as root becomes root by sudo.
func TestSudo(t *testing.T) {
	f := New(t, 2)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	for _, n := range f.Nodes {
		n.Put("/etc/ssh/e2e/sshd_config", 0o644, []byte(strings.Replace(sshdConfig, "prohibit-password", "no", 1)))
		n.Do("usermod -p '*' alice") // without a password, but not locked
	}
	a := f.Ask("install", older.PackageArguments()...)
	expect(t, a, 1, all(f.Nodes, "failed"))
	if o := a.Nodes[f.Nodes[0].Name]; !contains(o.Cause, "login") || o.Hint == "" {
		t.Errorf("%+v", o)
	}
	a = f.Ask("install", append(older.PackageArguments(), "--user", "alice")...)
	expect(t, a, 1, all(f.Nodes, "failed"))
	if o := a.Nodes[f.Nodes[0].Name]; !contains(o.Cause, "root") || !contains(o.Hint, "--sudo") {
		t.Errorf("%+v", o)
	}
	// One of them asks for a password.
	f.Nodes[1].Do("rm /etc/sudoers.d/alice && echo 'alice ALL=(ALL) ALL' >/etc/sudoers.d/alice")
	a = f.Ask("install", append(older.PackageArguments(), "--user", "alice", "--sudo")...)
	expect(t, a, 1, map[string]string{f.Nodes[0].Name: "ok", f.Nodes[1].Name: "failed"})
	healthy(t, f, f.Nodes[0], older)
	if o := a.Nodes[f.Nodes[1].Name]; !contains(o.Hint, "NOPASSWD") {
		t.Errorf("%+v", o)
	}
}
