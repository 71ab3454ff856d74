// Package e2e holds what the targets of the Makefile share; the tests with a
// whole machine are in the folders below.
package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need runs need.sh with nothing in PATH but stand-ins. Each stand-in is the
// body of a shell script.
func need(t *testing.T, standins map[string]string, args ...string) (output string, installed string, ok bool) {
	t.Helper()
	bin := t.TempDir()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("need.sh is written for bash: ", err)
	}
	for _, tool := range []string{"mktemp", "tail", "rm", "chmod", "cp"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for name, body := range standins {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!"+bash+"\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bash, append([]string{"need.sh"}, args...)...)
	log := filepath.Join(bin, "installed")
	cmd.Env = []string{"PATH=" + bin, "BIN=" + bin, "LOG=" + log, "TMPDIR=" + bin}
	out, err := cmd.CombinedOutput()
	data, _ := os.ReadFile(log)
	return string(out), strings.TrimSpace(string(data)), err == nil
}

func TestNeed(t *testing.T) {
	const (
		user    = "echo 1000"
		root    = "echo 0"
		manager = `echo "${0##*/} $*" >>"$LOG"`
		helps   = manager + `; cp "$BIN/id" "$BIN/no-such-tool"`
		broken  = `echo "E: no network" >&2; exit 100`
	)
	for name, test := range map[string]struct {
		standins  map[string]string
		args      []string
		ok        bool
		installed string
		says      []string
	}{
		"all there":     {map[string]string{"id": user, "one": "", "two": ""}, []string{"one", "two"}, true, "", nil},
		"nothing asked": {map[string]string{"id": user}, nil, true, "", nil},
		"user": {map[string]string{"id": user, "apt-get": manager, "dnf": manager}, []string{"no-such-one", "no-such-tool"}, false, "",
			[]string{"the command no-such-one is missing; install the package no-such-one (Debian) or no-such-one (RPM)", "the command no-such-tool is missing"}},
		"root, apt": {map[string]string{"id": root, "apt-get": manager}, []string{"no-such-tool"}, false,
			"apt-get update -q\napt-get install -qy --no-install-recommends no-such-tool", []string{"need: installing no-such-tool", "is missing"}},
		"root, apt, broken": {map[string]string{"id": root, "apt-get": broken}, []string{"no-such-tool"}, false, "",
			[]string{"E: no network", "the command no-such-tool is missing"}},
		"root, dnf": {map[string]string{"id": root, "dnf": manager}, []string{"no-such-tool"}, false, "dnf -y install no-such-tool",
			[]string{"need: installing no-such-tool", "the command no-such-tool is missing"}},
		"root, yum": {map[string]string{"id": root, "yum": manager}, []string{"no-such-tool"}, false, "yum -y install no-such-tool", nil},
		"root, dnf helps": {map[string]string{"id": root, "dnf": helps}, []string{"no-such-tool"}, true, "dnf -y install no-such-tool",
			[]string{"need: installing no-such-tool"}},
		"root, nothing to install with": {map[string]string{"id": root}, []string{"no-such-tool"}, false, "", []string{"the command no-such-tool is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []string{"apt-get", "dnf", "microdnf", "yum"} {
				for _, dir := range []string{"/usr/sbin", "/sbin"} { // need.sh looks there as well
					if _, err := os.Stat(filepath.Join(dir, m)); err == nil && test.standins["id"] == root {
						t.Skip("this machine has a package manager in " + dir)
					}
				}
			}
			out, installed, ok := need(t, test.standins, test.args...)
			if ok != test.ok || installed != test.installed {
				t.Errorf("ok %v, installed %q, want %v, %q; it said: %s", ok, installed, test.ok, test.installed, out)
			}
			for _, s := range test.says {
				if !strings.Contains(out, s) {
					t.Errorf("it did not say %q: %s", s, out)
				}
			}
			if len(test.says) == 0 && test.ok && out != "" {
				t.Errorf("it said %s", out)
			}
		})
	}
}
