package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nodes that do not get on are given up, each in its time, and the others are
// not held up.
func TestPatience(t *testing.T) {
	f := New(t, 3)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	silent, crawling, good := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	f.Set(silent, Faults{Silent: true})
	f.Set(crawling, Faults{Rate: 100 << 10}) // minutes
	a := f.Ask("install", append(older.PackageArguments(), "--connect-timeout", "2s", "--node-timeout", "45s")...)
	expect(t, a, 1, map[string]string{silent.Name: "failed", crawling.Name: "failed", good.Name: "ok"})
	for n, cause := range map[*Node]string{silent: "timed out", crawling: "--node-timeout"} {
		if o := a.Nodes[n.Name]; !contains(o.Cause, cause) || o.Hint == "" {
			t.Errorf("%s: %+v", n.Name, o)
		}
		f.Set(n, Faults{})
		n.settled()
		if got := n.Release(older); got != "none" {
			t.Errorf("%s has %s", n.Name, got)
		}
	}
	healthy(t, f, good, older)
	expect(t, f.Ask("install", older.PackageArguments()...), 0, map[string]string{silent.Name: "ok", crawling.Name: "ok", good.Name: "unchanged"})
	for _, n := range f.Nodes {
		healthy(t, f, n, older)
	}
}

// Names of nodes come from others. One that ssh or a shell would take for
// something else goes no further than to the message.
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
			t.Fatalf("the name %q was run", name)
		}
	}
	for name, count := range f.Connections() {
		if count != 0 {
			t.Errorf("%s: %d connections", name, count)
		}
	}
}

// quoted is a string of YAML.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
