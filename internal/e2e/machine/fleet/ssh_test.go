package fleet

import (
	"path/filepath"
	"testing"
)

// ssh is the administrator's, with all that ssh_config can do: connections that
// are shared and stay open, and nodes that are reached through another one.
func TestAdministratorsSSH(t *testing.T) {
	f := New(t, 3)
	f.Distribution(f.Nodes...)
	older, _ := f.Releases()

	t.Run("shared connections", func(t *testing.T) {
		f := f.For(t)
		shared := []string{"--ssh-option", "ControlMaster=auto", "--ssh-option", "ControlPath=" + filepath.Join(f.Dir, "%h-%p"), "--ssh-option", "ControlPersist=120"}
		defer func() {
			for _, n := range f.Nodes {
				f.Run(nil, "ssh", "-F", f.Config(), "-o", "ControlPath="+filepath.Join(f.Dir, "%h-%p"), "-O", "exit", n.Name)
			}
		}()
		f.Connections()
		expect(t, f.Ask("install", append(older.PackageArguments(), shared...)...), 0, all(f.Nodes, "ok"))
		expect(t, f.Ask("install", append(older.PackageArguments(), shared...)...), 0, all(f.Nodes, "unchanged"))
		for name, n := range f.Connections() {
			if n != 1 {
				t.Errorf("%s: %d connections for two runs, want 1", name, n)
			}
		}
	})

	t.Run("jump host", func(t *testing.T) {
		f := f.For(t)
		gate, behind := f.Nodes[0], f.Nodes[1]
		f.Connections()
		a := f.Ask("install", append(older.PackageArguments(), "--ssh-option", "ProxyJump="+gate.Name, "--dry-run", behind.Name)...)
		expect(t, a, 0, map[string]string{behind.Name: "unchanged"})
		if n := f.Connections(); n[gate.Name] != 1 || n[behind.Name] != 1 {
			t.Errorf("connections: %v, want one to each of %s and %s", n, gate.Name, behind.Name)
		}
		for _, n := range []*Node{gate, behind} {
			healthy(t, f, n, older)
		}
	})
}
