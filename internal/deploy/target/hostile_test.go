package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// Nothing that others wrote is ever run: neither contents nor arguments nor what
// lies on the node.
func TestNothingOfOthersIsRun(t *testing.T) {
	s := newScene(t)
	trap := filepath.Join(t.TempDir(), "sprung")
	evil := "'; touch " + trap + " #\n$(touch " + trap + ")\n`touch " + trap + "`\"; touch " + trap + "\n"
	w := wanted(s.packages("1", "exit 0", ""))
	w.Host = `api"; $(touch ` + trap + `)`
	w.Daemons[0].Token, w.Daemons[0].CA = []byte(evil), []byte(evil)
	w.Daemons[0].Arguments = []string{"--x=$(touch " + trap + ")", "a'b", `c"d`, "%n $HOME"}
	w.Daemons[0].Environment = []Variable{{"GOGC", "`touch " + trap + "`"}}
	dir := "etc/systemd/system/clientmountd.service.d/"
	s.Put(dir+"$(touch "+strings.ReplaceAll(trap, "/", "_")+").conf", "[Service]\n", 0o644)
	s.Put(dir+"line\nbreak.conf", "[Service]\n", 0o644)
	s.Put(dir+"evil.conf", evil, 0o644)
	s.Put("run/fake/status.clientmountd.service", evil, 0o644)
	s.Put("run/fake/journal", evil, 0o644)
	s.install(w)
	if s.Get("etc/clientmountd/service.token") != evil {
		t.Error("the token is not what was given")
	}
	for _, want := range []string{`"--x=$$(touch ` + trap + `)" "a'b" "c\"d" "%%n $$HOME"`, "Environment=\"GOGC=`touch " + trap + "`\""} {
		if text := s.Get(dir + "50-nnf-deploy.conf"); !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	if text := s.Get("etc/clientmountd/config.d/50-nnf-deploy.toml"); !strings.Contains(text, `service_host = "api\"; $(touch `) {
		t.Error(text)
	}
	p, err := s.remove(w, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("it was run")
	}
}

// Names that would break out of a path are refused before any node hears of them.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		d    Daemon
		want string
	}{
		{Daemon{Name: "nnf-data-movement", Bin: "nnf-dm"}, ""},
		{Daemon{Name: "nnf-fence"}, ""},
		{Daemon{Name: "../x"}, "cannot be that of a folder"},
		{Daemon{Name: ".."}, "cannot be that of a folder"},
		{Daemon{Name: "a b"}, "cannot be that of a folder"},
		{Daemon{Name: "a\nb"}, "cannot be that of a folder"},
		{Daemon{Name: ""}, "cannot be that of a folder"},
		{Daemon{Name: "x", Bin: "rm"}, "none that nnf-deploy can install"},
		{Daemon{Name: "x", Bin: "nnf-dm", Arguments: []string{"a\nb"}}, "line break"},
		{Daemon{Name: "x", Bin: "nnf-dm", Environment: []Variable{{"A B", "c"}}}, "no name of an environment variable"},
	} {
		err := (&Want{Daemons: []Daemon{tt.d}}).Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.d, err)
		}
	}
}

// A link in the place of a file is replaced, and what it points to stays.
func TestLinksAreReplaced(t *testing.T) {
	s := newScene(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	s.Put("somewhere/secret", "mine", 0o600)
	token := filepath.Join(s.Root, "etc/clientmountd/service.token")
	if err := errors.Join(os.Remove(token), os.Symlink(filepath.Join(s.Root, "somewhere/secret"), token)); err != nil {
		t.Fatal(err)
	}
	s.install(w)
	if st, err := os.Lstat(token); err != nil || !st.Mode().IsRegular() || s.Get("etc/clientmountd/service.token") != "token-1" || s.Get("somewhere/secret") != "mine" {
		t.Errorf("%v %v", st, err)
	}
	state := filepath.Join(s.Root, "var/lib/nnf-deploy")
	if err := errors.Join(os.RemoveAll(state), os.Symlink(s.Root, state)); err != nil {
		t.Fatal(err)
	}
	w.Force = true
	if _, err := s.apply(w); err == nil || !strings.Contains(err.Error(), "/var/lib/nnf-deploy is a symbolic link") {
		t.Errorf("%v", err)
	}
}

// What can be known before anything is sent.
func TestNodesThatCannotBe(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want, hint string }{
		{"full disk", "run/fake/free", "300", "the file system of /var/lib/nnf-deploy is full: 0.3 MiB free, 1.0 MiB needed", "make room"},
		{"not root", "run/fake/uid", "1000", "the login is not root", "--sudo"},
		{"another machine", "run/fake/arch", "riscv64", "what is given of clientmountd is for x86_64, and the node is riscv64", "built for it"},
		{"masked", "run/fake/masked.clientmountd.service", "", "clientmountd.service is masked there", "systemctl unmask clientmountd.service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			before := s.state()
			s.Put(tt.file, tt.text, 0o644)
			w := wanted(s.packages("1", "exit 0", ""))
			r, err := Probe(t.Context(), s.shell, w)
			if err == nil {
				_, err = Diff(w, r)
			}
			if p := (*Problem)(nil); !errors.As(err, &p) || p.Text != tt.want || !strings.Contains(p.Hint, tt.hint) {
				t.Errorf("%v", err)
			}
			if s.state() != before {
				t.Error("something has changed")
			}
		})
	}
}

// What only shows while staging: nothing changes, and nothing is left.
func TestStagingFails(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"a folder in the place of a file", "etc/clientmountd/service.token/x", "/etc/clientmountd/service.token is a folder"},
		{"a file in the place of a folder", "etc/nnf-dm", "/etc/nnf-dm is not a folder"},
		{"a file in the place of ours", "var/lib/nnf-deploy", "cannot make /var/lib/nnf-deploy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			s.Put(tt.path, "", 0o644)
			before := s.state()
			if _, err := s.apply(wanted(s.packages("1", "exit 0", ""))); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if after := s.state(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			s.nothingStaged()
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, tt := range []struct{ answer, want string }{
		{"", "it gives no answer"},
		{"Welcome to compute-01\n", "it gives no answer"},
		{"nnf-deploy\tprobe\t1\narch\tx86_64\n", "its answer is cut off"},
		{"error\tthe login is not root\tuse --sudo\n", "the login is not root"},
		{"nnf-deploy\tprobe\t1\n" + strings.Repeat("x", 2<<20), "its answer is not understood: bufio.Scanner: token too long"},
		{"noise\nunit\tx\nnnf-deploy\tprobe\t1\nunit\nunit\tx\nfile\nspace\tx\ty\nmounts\tx\ncontent\tx\t!!\nclaims\tx\t!!\nunknown\nend\n", ""},
	} {
		r, err := parseReport(strings.NewReader(tt.answer))
		if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%.60q: %+v %v", tt.answer, r, err)
		}
	}
}

func TestFaultsOfTheWayThere(t *testing.T) {
	s := newScene(t)
	w := wanted(s.bare("1", "exit 0"))
	for fault, want := range map[string]remote.Kind{"dead": remote.Unreachable, "hostkey": remote.HostKey, "denied": remote.Denied, "sudo": remote.Root} {
		s.Fault(fault)
		_, err := Probe(t.Context(), s.shell, w)
		if e := (*remote.Error)(nil); !errors.As(err, &e) || e.Kind != want || e.Hint == "" {
			t.Errorf("%s: %#v", fault, err)
		}
	}
}
