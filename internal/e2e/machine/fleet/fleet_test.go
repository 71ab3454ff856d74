package fleet

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, Tools...)) }

func contains(text, part string) bool { return strings.Contains(text, part) }

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Eight separate nodes can be reached by ssh, and the faults have their effects.
func TestFleet(t *testing.T) {
	f := New(t, 8)
	started := time.Now()
	for _, n := range f.Nodes {
		r := f.SSH(n, "hostname; id -un; cat; exit 7")
		if r.Code != 7 || r.Stdout != n.Name+"\nroot\n" || r.Stderr != "" {
			t.Errorf("%s: %+v", n.Name, r)
		}
	}
	t.Logf("eight sessions, one after another: %.1f s", time.Since(started).Seconds())
	for name, count := range f.Connections() {
		if count != 1 {
			t.Errorf("%s: %d connections, want 1", name, count)
		}
	}
	for name, fault := range map[string]struct {
		set  func(f *Fleet, n *Node)
		text string
	}{
		"dead":           {func(f *Fleet, n *Node) { f.Set(n, Faults{Dead: true}) }, "Connection refused"},
		"silent":         {func(f *Fleet, n *Node) { f.Set(n, Faults{Silent: true}) }, "timed out"},
		"wrong host key": {func(f *Fleet, n *Node) { f.WrongHostKeys(n) }, "Host key verification failed"},
		"cut":            {func(f *Fleet, n *Node) { f.Set(n, Faults{CutAt: 3000}) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := f.For(t)
			bad, good := f.Nodes[1], f.Nodes[2]
			fault.set(f, bad)
			if r := f.SSH(bad, "true"); r.Code != 255 || !contains(r.Stderr, fault.text) {
				t.Errorf("%+v, want exit code 255 and %q", r, fault.text)
			}
			if r := f.SSH(good, "true"); r.Code != 0 {
				t.Errorf("another node: %+v", r)
			}
		})
	}
	for _, n := range f.Nodes {
		if r := f.SSH(n, "true"); r.Code != 0 {
			t.Errorf("%s, without faults: %+v", n.Name, r)
		}
	}
}

// Only the given nodes are contacted, in the order of the system. An unknown node is an error
// before the first node is contacted.
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
	a := f.DeployJSON("install", append(older.PackageArguments(), "compute-03", "compute-01", "--only-daemon", "clientmountd")...)
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

// Names of nodes are not trusted. A name that would be special to ssh or a shell is only in the
// error message.
func TestHostileNames(t *testing.T) {
	f := New(t, 1)
	older, _ := f.Releases()
	mark := filepath.Join(f.Dir, "mark")
	for _, name := range []string{"-oProxyCommand=touch " + mark, "compute-01;touch " + mark, "$(touch " + mark + ")", "root@compute-01", "compute-01 x", "../compute-01"} {
		text := strings.Replace(systemFile, "[{name: compute-02}]", "[{name: "+quoted(name)+"}]", 1)
		file := f.write("system.yaml", 0o600, text)
		for _, verb := range []string{"install", "status", "uninstall"} {
			args := []string{"--system-config", file}
			if verb == "install" {
				args = append(args, older.PackageArguments()...)
			}
			r := f.Deploy(verb, args...)
			if r.Code == 0 || !contains(r.Stderr, "name") {
				t.Errorf("%s with a node %q: %+v", verb, name, r)
			}
		}
		if _, err := os.Stat(mark); err == nil {
			t.Fatalf("the name %q was executed", name)
		}
	}
	for name, count := range f.Connections() {
		if count != 0 {
			t.Errorf("%s: %d connections", name, count)
		}
	}
}

// quoted returns s as a quoted string in YAML.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
