package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Many at once is what one does over a network; how much it wins is printed.
// What counts is that neither way leaves another system behind.
func TestParallelAndSequential(t *testing.T) {
	f := New(t, 8)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	for _, n := range f.Nodes {
		f.Set(n, Faults{Rate: 4 << 20, Latency: 5 * time.Millisecond})
	}
	var took []time.Duration
	for _, way := range []struct {
		release  *Release
		parallel string
	}{{older, "1"}, {newer, "8"}} {
		r := f.Deploy("install", append(way.release.PackageArguments(), "--parallel", way.parallel)...)
		if r.Code != 0 {
			t.Fatalf("--parallel %s: %+v", way.parallel, r)
		}
		took = append(took, r.Took)
		for _, n := range f.Nodes {
			healthy(t, f, n, way.release)
		}
	}
	t.Logf("eight nodes, lines of 4 MB/s and 5 ms: one after another %.1f s, eight at once %.1f s", took[0].Seconds(), took[1].Seconds())
}

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

// Only the nodes that are named, in the order of the system; a name that is
// none of its nodes' is an error before anything is done.
func TestSelection(t *testing.T) {
	f := New(t, 3)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	f.Connections()
	r := f.Deploy("install", append(older.PackageArguments(), "compute-01", "compute-30")...)
	if r.Code == 0 || !contains(r.Stderr, "compute-30") {
		t.Errorf("%+v", r)
	}
	for name, count := range f.Connections() {
		if count != 0 {
			t.Errorf("%s: %d connections", name, count)
		}
	}
	a := f.Ask("install", append(older.PackageArguments(), "compute-03", "compute-01", "--only-daemon", "clientmountd")...)
	expect(t, a, 0, map[string]string{"compute-01": "ok", "compute-03": "ok"})
	for name, count := range f.Connections() {
		if (count > 0) != slices.Contains([]string{"compute-01", "compute-03"}, name) {
			t.Errorf("%s: %d connections", name, count)
		}
	}
	for _, n := range f.Nodes {
		want := " \n"
		if n.Name != "compute-02" {
			want = older.Sums["clientmountd"] + " \n"
		}
		if got := n.Sum("/usr/bin/clientmountd") + " " + n.Sum("/usr/bin/nnf-dm") + "\n"; got != want {
			t.Errorf("%s has %q, want %q", n.Name, got, want)
		}
	}
}

// Programs without packages, with the daemons' own units.
func TestPrograms(t *testing.T) {
	f := New(t, 2)
	older, newer := f.Releases()
	for _, r := range []*Release{older, newer} {
		expect(t, f.Ask("install", "--binary-dir", r.Programs), 0, all(f.Nodes, "ok"))
		for _, n := range f.Nodes {
			healthy(t, f, n, r)
		}
		f.Nodes[0].serves(strings.ReplaceAll(r.Version, ".", "-"))
	}
	before := processes(f.Nodes)
	expect(t, f.Ask("install", "--binary-dir", newer.Programs), 0, all(f.Nodes, "unchanged"))
	for name, now := range processes(f.Nodes) {
		if now != before[name] {
			t.Errorf("%s: %q before, %q now", name, before[name], now)
		}
	}
	// The packages take over from the programs.
	f.Distribution(f.Nodes...)
	expect(t, f.Ask("install", newer.PackageArguments()...), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		healthy(t, f, n, newer)
		if path := n.Property("clientmountd", "FragmentPath"); path != "/usr/lib/systemd/system/clientmountd.service" && path != "/lib/systemd/system/clientmountd.service" {
			t.Errorf("%s: the unit is %s", n.Name, path)
		}
	}
	expect(t, f.Ask("uninstall"), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		if got := n.Release(); got != "none" {
			t.Errorf("%s has %s", n.Name, got)
		}
	}
}
