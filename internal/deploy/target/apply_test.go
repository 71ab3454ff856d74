package target

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func TestInstallOnNewNode(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		t.Run(kind, func(t *testing.T) {
			s := newTestNode(t)
			w := wanted(s.packages("1", "exit 0", ""))
			if kind == "programs" {
				w = wanted(s.bare("1", "exit 0"))
			}
			s.install(w)
			s.nothingStaged()
			for path, want := range map[string]string{
				"etc/clientmountd/service.token": "token-1", "etc/clientmountd/service.cert": "ca-1", "etc/nnf-dm/service.token": "token-2",
			} {
				if s.Get(path) != want {
					t.Errorf("%s is %q", path, s.Get(path))
				}
			}
			files := s.Files("etc/clientmountd", "etc/nnf-dm")
			for path, mode := range map[string]string{
				"/etc/clientmountd": "drwx------", "/etc/clientmountd/service.token": "-rw-------", "/etc/clientmountd/config.d": "drwx------",
				"/etc/nnf-dm": "drwxr-x---", "/etc/nnf-dm/service.token": "-rw-r-----", "/etc/nnf-dm/service.cert": "-rw-r-----",
			} {
				if !strings.HasPrefix(files[path], mode) {
					t.Errorf("%s is %s, want %s", path, files[path], mode)
				}
			}
			r, err := Probe(t.Context(), s.shell, w)
			if err != nil {
				t.Fatal(err)
			}
			if f := r.Files["/etc/nnf-dm/service.token"]; f.Owner != "root:nnf-dm" {
				t.Errorf("%+v", f)
			}
			if r.Units["clientmountd.service"].Active != "active" || r.Units["nnf-dm.socket"].Active != "active" || r.Versions["clientmountd"] != "1" {
				t.Errorf("%+v %+v", r.Units, r.Versions)
			}
			s.Log()
			if p := s.plan(w); !p.Empty() {
				t.Errorf("a second run would change:\n%s", changes(p))
			}
			if log := s.Log(); len(log) != 0 {
				t.Errorf("the probe has changed something: %q", log)
			}
		})
	}
}

// restarted returns the units that have been started or restarted since the last call.
func (s *testNode) restarted() (list []string) {
	for _, line := range s.Log() {
		if verb, unit, _ := strings.Cut(line, " "); verb == "restart" || verb == "start" {
			list = append(list, unit)
		}
	}
	return list
}

// Only daemons with a change are restarted.
func TestOnlyChangedDaemonsAreRestarted(t *testing.T) {
	s := newTestNode(t)
	old := s.packages("1", "exit 0", "")
	w := wanted(old)
	s.install(w)
	s.restarted()

	w.Daemons[1].Token = []byte("token-2b")
	if p := s.plan(w); changes(p) != "replace /etc/nnf-dm/service.token\nrestart nnf-dm.service\n" {
		t.Errorf("a new token of one daemon:\n%s", changes(p))
	}
	s.install(w)
	if got := s.restarted(); !slices.Equal(got, []string{"nnf-dm.service"}) {
		t.Errorf("a new token of one daemon restarts %q", got)
	}
	newer := s.packages("2", "exit 0", "")
	w.Payload.Packages = append(w.Payload.Packages[:0:0], newer.Packages[0], old.Packages[1])
	s.install(w)
	if got := s.restarted(); !slices.Equal(got, []string{"clientmountd.service"}) || !strings.Contains(s.Get("usr/bin/clientmountd"), "Version 2") {
		t.Errorf("a new package of one daemon restarts %q", got)
	}
	if err := os.Chmod(filepath.Join(s.Root, "etc/nnf-dm/service.token"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p := s.plan(w); changes(p) != "permissions /etc/nnf-dm/service.token\n" {
		t.Errorf("a token with a wrong mode:\n%s", changes(p))
	}
	s.install(w)
	if got := s.restarted(); len(got) != 0 || s.Files("etc/nnf-dm")["/etc/nnf-dm/service.token"][:10] != "-rw-r-----" {
		t.Errorf("permissions alone restart %q: %v", got, s.Files("etc/nnf-dm"))
	}
	w.Force = true
	s.install(w)
	if got := s.restarted(); !slices.Equal(got, []string{"clientmountd.service", "nnf-dm.service"}) {
		t.Errorf("with Force, %q were restarted", got)
	}
}

// If a new version does not become ready, the old one is restored exactly, and runs.
func TestNotReadyRestoresOldVersion(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		t.Run(kind, func(t *testing.T) {
			s := newTestNode(t)
			payloads := s.packages
			if kind == "programs" {
				payloads = func(version, ready, _ string) payload.Payload { return s.bare(version, ready) }
			}
			s.install(wanted(payloads("1", "exit 0", "")))
			before := s.state()
			running := s.Get("run/fake/running.clientmountd.service")

			w := wanted(payloads("2", "exit 1", ""))
			w.Daemons[0].Token = []byte("another token")
			s.Put("run/fake/journal", "clientmountd: error: /etc/clientmountd/config.toml:1: unknown key \"x\"\n\x1b[31mlast\tline\n", 0o600)
			o, err := s.apply(w)
			problem := (*Problem)(nil)
			if !errors.As(err, &problem) || o == nil || o.State != "old" || !strings.Contains(problem.Text, "clientmountd.service is not ready") ||
				!strings.HasSuffix(problem.Text, "; the previous state was restored") || !strings.Contains(problem.Hint, "journalctl -u clientmountd.service") {
				t.Fatalf("%v %+v", err, o)
			}
			if len(o.Journal) != 2 || o.Journal[0] != `clientmountd: error: /etc/clientmountd/config.toml:1: unknown key "x"` {
				t.Errorf("%q", o.Journal)
			}
			if after := s.state(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if now := s.Get("run/fake/running.clientmountd.service"); now != running || s.Get("run/fake/active.clientmountd.service") != "active\n" {
				t.Error("the old version does not run")
			}
			s.nothingStaged()
			w = wanted(payloads("3", "exit 0", ""))
			s.install(w)
			if !strings.Contains(s.Get("usr/bin/clientmountd"), "Version 3") {
				t.Error("the next version was not installed")
			}
		})
	}
}

// If no version ran before, the new one stays, and the next run retries.
func TestNotReadyOnNewNode(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.packages("1", "exit 1", ""))
	o, err := s.apply(w)
	if err == nil || o.State != "unready" || !strings.Contains(err.Error(), "the new version stays") {
		t.Fatalf("%v %+v", err, o)
	}
	s.nothingStaged()
	if p := s.plan(w); changes(p) != "start clientmountd.service\nstart nnf-dm.service\n" {
		t.Errorf("a second run:\n%s", changes(p))
	}
	s.Put("usr/bin/clientmountd", program("1", "exit 0"), 0o755)
	s.Put("usr/bin/nnf-dm", program("1", "exit 0"), 0o755)
	s.install(w)
}

func TestPackageTransactionFails(t *testing.T) {
	s := newTestNode(t)
	s.install(wanted(s.packages("1", "exit 0", "")))
	before := s.state()
	w := wanted(s.packages("2", "exit 0", "# fails\n"))
	o, err := s.apply(w)
	if err == nil || o.State != "old" || !strings.Contains(err.Error(), "No space left on device") || strings.Contains(err.Error(), "warning") {
		t.Fatalf("%v %+v", err, o)
	}
	if s.state() != before {
		t.Error("the node has changed")
	}
	s.nothingStaged()
}

// The scripts keep their state in the directory in the product table.
func TestScriptsUseStateDirectory(t *testing.T) {
	for name, text := range map[string]string{"shared": shared, "switch": switchText} {
		if !strings.Contains(text, "\nD=$R"+product.StateDirectory) {
			t.Errorf("%s does not use %s", name, product.StateDirectory)
		}
	}
}

// When a daemon is ready, the switch calls its client, as users do. If the client gets no
// answer, this is a note and not a failure.
func TestClientWithoutAnswerIsNote(t *testing.T) {
	s := newTestNode(t)
	p := s.bare("1", "exit 0")
	for i := range p.Programs {
		if one := &p.Programs[i]; one.Name == "nnf-dmctl" {
			one.File = s.file(filepath.Join(t.TempDir(), one.Name), "#!/bin/sh\necho \"$* failed\" >&2\nexit 7\n")
		}
	}
	o, err := s.apply(wanted(p))
	if want := []string{"nnf-dm runs, but nnf-dmctl gets no answer from it: version failed"}; err != nil || o.State != "ok" || !slices.Equal(o.Notes, want) {
		t.Errorf("%v %+v, want the notes %q", err, o, want)
	}
}

// Checks the scripts in the form in which they are sent, and the fake commands of nodes.
func TestScriptsLint(t *testing.T) {
	for _, s := range []remote.Script{probeScript, applyScript, collectScript, {Name: "switch", Text: bare(switchText)}} {
		for _, shell := range []string{"dash", "bash", "busybox"} {
			args := []string{shell, "-n"}
			if shell == "busybox" {
				args = []string{shell, "sh", "-n"}
			}
			if _, err := exec.LookPath(shell); err != nil {
				t.Logf("%s is not installed", shell)
				continue
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = strings.NewReader(s.Text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v %s", s.Name, shell, err, out)
			}
		}
		if strings.Contains(s.Text, "\n#") || strings.HasPrefix(s.Text, "#") {
			t.Errorf("%s is sent with comments", s.Name)
		}
	}
	require.Tool(t, "shellcheck")
	stubs, err := filepath.Glob("../remote/fakenode/bin/*")
	if err != nil || len(stubs) < 5 {
		t.Fatal(stubs, err)
	}
	if out, err := exec.Command("shellcheck", stubs...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// restores applies w, which must fail and restore the previous state.
func (s *testNode) restores(w *Want) {
	s.t.Helper()
	all := func() string {
		return s.state() + s.Get("run/fake/rpm/clientmountd") + s.Get("run/fake/rpm/nnf-dm")
	}
	before := all()
	o, err := s.apply(w)
	if err == nil || o == nil || o.State != "old" {
		s.t.Fatalf("%v %+v", err, o)
	}
	if after := all(); after != before {
		s.t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	s.nothingStaged()
}

// If packages replace programs, and the new version does not become ready, the programs and their units
// are restored, and the packages are not installed any more.
func TestNotReadyPackagesRestorePrograms(t *testing.T) {
	s := newTestNode(t)
	s.install(wanted(s.bare("1", "exit 0")))
	enabled := s.Get("run/fake/enabled.clientmountd.service") + s.Get("run/fake/enabled.nnf-dm.socket")
	s.restores(wanted(s.packages("2", "exit 1", "")))
	if got := s.Get("run/fake/enabled.clientmountd.service") + s.Get("run/fake/enabled.nnf-dm.socket"); got != enabled {
		t.Errorf("enabled: %q, before: %q", got, enabled)
	}
	for _, unit := range []string{"clientmountd.service", "nnf-dm.socket", "nnf-dm.service"} {
		if got := s.Get("run/fake/active." + unit); got != "active\n" {
			t.Errorf("%s is %s", unit, got)
		}
	}
	s.install(wanted(s.packages("3", "exit 0", "")))
}

// If a step after the packages fails on a new node, the packages are removed again.
func TestFailedStepRemovesNewPackages(t *testing.T) {
	s := newTestNode(t)
	s.Put("run/fake/refuse", "daemon-reload ", 0o600)
	s.restores(wanted(s.packages("1", "exit 0", "")))
}

// If rpm fails or is killed after it has installed a package, the previous state is restored.
func TestPackageTransactionStops(t *testing.T) {
	for _, kind := range []string{"packages", "programs"} {
		for _, how := range []string{"# stops\n", "# killed\n"} {
			t.Run(kind+strings.TrimSpace(how), func(t *testing.T) {
				s := newTestNode(t)
				w := wanted(s.packages("1", "exit 0", ""))
				if kind == "programs" {
					w = wanted(s.bare("1", "exit 0"))
				}
				s.install(w)
				s.restores(wanted(s.packages("2", "exit 0", how)))
			})
		}
	}
}
