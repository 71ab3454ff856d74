package fleet

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The releases differ, so that upgrades can be tested.
func TestReleasesDiffer(t *testing.T) {
	f := New(t, 1)
	older, newer := f.Releases()
	for _, r := range []*Release{older, newer} {
		for _, p := range programs {
			out, err := exec.Command(filepath.Join(r.Programs, p), "version").Output()
			if p == "nnf-dmctl" {
				out, err = exec.Command(filepath.Join(r.Programs, p), "--version").Output()
			}
			if err != nil || !contains(string(out), r.Version) {
				t.Errorf("%s of %s prints %q, %v", p, r.Version, out, err)
			}
		}
	}
	for _, p := range programs {
		if older.Sums[p] == newer.Sums[p] {
			t.Errorf("both releases have the same %s", p)
		}
	}
}

// The nodes are like those of a site: rpm can install the packages, or dnf if a dependency is
// missing.
func TestDistribution(t *testing.T) {
	f := New(t, 2)
	older, _ := f.Releases()
	known, offered := f.Nodes[0], f.Nodes[1]
	f.Distribution(known)
	f.Repository(offered)
	for _, n := range f.Nodes {
		for _, p := range older.Packages {
			if contains(filepath.Base(p), "deploy") {
				continue // for administrators
			}
			n.Put("/root/rpm/"+filepath.Base(p), 0o644, []byte(readFile(t, p)))
		}
	}
	known.Do("rpm -U /root/rpm/*.rpm")
	if out, code, err := offered.Run(offered.Context(), "rpm -U /root/rpm/*.rpm"); err != nil || code == 0 || !contains(out, "Failed dependencies") {
		t.Errorf("rpm without the dependencies: %v, exit code %d: %s", err, code, out)
	}
	offered.Do("dnf -y -q install /root/rpm/*.rpm")
	for _, n := range f.Nodes {
		if got := n.Release(older); got != older.Version {
			t.Errorf("%s has %s", n.Name, got)
		}
		n.Do("rpm -q distribution")
	}
}

// Programs without packages use the units of "PROGRAM install".
func TestPrograms(t *testing.T) {
	f := New(t, 2)
	older, newer := f.Releases()
	for _, r := range []*Release{older, newer} {
		expect(t, f.DeployJSON("install", "--binary-dir", r.Programs), 0, all(f.Nodes, "ok"))
		for _, n := range f.Nodes {
			healthy(t, f, n, r)
		}
		f.Nodes[0].serves(strings.ReplaceAll(r.Version, ".", "-"))
	}
	before := processes(f.Nodes)
	expect(t, f.DeployJSON("install", "--binary-dir", newer.Programs), 0, all(f.Nodes, "unchanged"))
	for name, now := range processes(f.Nodes) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	// Packages replace the programs.
	f.Distribution(f.Nodes...)
	expect(t, f.DeployJSON("install", newer.PackageArguments()...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		healthy(t, f, n, newer)
		if path := n.Property("clientmountd", "FragmentPath"); path != "/usr/lib/systemd/system/clientmountd.service" && path != "/lib/systemd/system/clientmountd.service" {
			t.Errorf("%s: the unit is %s", n.Name, path)
		}
	}
	expect(t, f.DeployJSON("uninstall"), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		if got := n.Release(); got != "none" {
			t.Errorf("%s has %s", n.Name, got)
		}
	}
}

// Whatever the start-up files of root's login shell print and read, each node can be installed
// and inspected, or the error gives the cause.
func TestStartUpFiles(t *testing.T) {
	f := New(t, 1)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	node := f.Nodes[0]
	expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	const cases = "internal/deploy/remote/testdata"
	paths, err := filepath.Glob(filepath.Join(f.repository(), cases, "bashrc-*"))
	if err != nil || len(paths) < 4 {
		t.Fatal(paths, err)
	}
	type login struct{ name, shell, file, text, cause string }
	list := []login{
		{"waits for a line", "/bin/bash", "/root/.bashrc", "read answer\n", "the start-up files of the login shell on compute-01 read standard input"},
		{"ends", "/bin/bash", "/root/.bashrc", "echo closed for maintenance; exit 1\n", "closed for maintenance"},
		{"dash", "/bin/dash", "/root/.profile", "", ""},
		{"tcsh", "/bin/tcsh", "/root/.cshrc", "echo -n title\n", ""},
		{"fish", "/usr/bin/fish", "/root/.config/fish/config.fish", "echo -n title\n", ""},
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, login{filepath.Base(path), "/bin/bash", "/root/.bashrc", string(text), ""})
	}
	for _, l := range list {
		t.Run(l.name, func(t *testing.T) {
			f := f.For(t)
			node := f.Nodes[0]
			if _, code, err := node.Run(node.Context(), "test -x "+l.shell); err != nil || code != 0 {
				t.Skipf("the node has no %s", l.shell)
			}
			node.Put(l.file, 0o644, []byte(l.text))
			node.Do("usermod -s " + l.shell + " root")
			defer node.Do("usermod -s /bin/bash root; rm -f " + l.file)
			r := f.Deploy("status", "-o", "json", "--connect-timeout", "3s")
			var s status
			if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil || len(s.Nodes) != 1 {
				t.Fatalf("%v: %+v", err, r)
			}
			if n := s.Nodes[0]; n.Well != (l.cause == "") || !strings.Contains(n.Cause, l.cause) || (n.Hint == "") != (l.cause == "") {
				t.Errorf("%+v", n)
			}
			if l.cause == "" {
				expect(t, f.DeployJSON("install", append(older.PackageArguments(), "--force")...), 0, all(f.Nodes, "ok"))
			}
		})
	}
	healthy(t, f, node, older)
}

// A site can continue to use its older installer: installation, run without changes, new
// credentials and new programs work.
func TestOlderInstaller(t *testing.T) {
	f := New(t, 2)
	n := f.Nodes[0]
	older, newer := f.Releases()
	olders := olders(f, older.Programs)
	running := func(f *Fleet) map[string]string {
		t.Helper()
		n := f.Nodes[0]
		found := map[string]string{}
		for _, o := range olders {
			n.Await(o.bin+" is active", "systemctl is-active "+o.bin)
			found[o.bin] = n.Process(o.bin)
			for _, part := range []string{"--service-token-file=/etc/" + o.name + "/service.token", o.args} {
				if !contains(found[o.bin], part) {
					t.Errorf("%s runs as %q, want %q in it", o.bin, found[o.bin], part)
				}
			}
		}
		return found
	}
	for _, o := range olders {
		if changed := o.install(f, n); len(changed) != 4 {
			t.Errorf("%s, first run: %q changed", o.bin, changed)
		}
	}
	first := running(f)
	f.Nodes[0].serves("first")
	if env := n.Do(`tr '\0' '\n' </proc/$(systemctl show --value -p MainPID clientmountd)/environ`) + "\n"; !contains(env, "GOGC=off\n") || !contains(env, "GOMAXPROCS=5\n") {
		t.Errorf("the environment of the drop-in is missing: %s", env)
	}

	t.Run("again", func(t *testing.T) {
		f := f.For(t)
		for _, o := range olders {
			if changed := o.install(f, f.Nodes[0]); len(changed) != 0 {
				t.Errorf("%s: %q changed", o.bin, changed)
			}
		}
		if now := running(f); now["clientmountd"] != first["clientmountd"] {
			t.Errorf("it runs as %q now, before as %q", now, first)
		}
	})
	// The installer only uses systemctl start, which does not restart a running daemon. The daemon
	// must notice the new token.
	t.Run("new credentials", func(t *testing.T) {
		f := f.For(t)
		f.rotate("clientmountd")
		if changed := olders[1].install(f, f.Nodes[0]); len(changed) != 1 || changed[0] != "service.token" {
			t.Errorf("%q changed, want the token", changed)
		}
		if now := running(f); now["clientmountd"] != first["clientmountd"] {
			t.Errorf("it runs as %q now, before as %q", now, first)
		}
		f.Nodes[0].serves("rotated") // each request of the daemon checks the token file
		f.Nodes[0].Await("the daemon uses the new token", "journalctl -b -u clientmountd -o cat | grep 'using the new token'")
	})
	t.Run("new programs", func(t *testing.T) {
		f := f.For(t)
		for _, o := range olders {
			o.binary = filepath.Join(newer.Programs, o.bin)
			if changed := o.install(f, f.Nodes[0]); len(changed) != 1 || changed[0] != o.bin {
				t.Errorf("%q changed, want %s", changed, o.bin)
			}
			if r := f.SSH(f.Nodes[0], o.bin+" version"); !contains(r.Stdout, newer.Version) {
				t.Errorf("%s version: %+v", o.bin, r)
			}
		}
		now := running(f)
		for _, o := range olders {
			if now[o.bin] == first[o.bin] {
				t.Errorf("%s is still the old process %q", o.bin, now[o.bin])
			}
		}
		f.Nodes[0].serves("updated")
	})
}
