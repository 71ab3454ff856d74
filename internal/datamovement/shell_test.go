package datamovement

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

const usualProfile = "ulimit -n 2048 && mpirun --allow-run-as-root --hostfile $HOSTFILE dcp --progress 1 --uid $UID --gid $GID $SRC $DEST"

// rabbitLine builds a command line by text replacement, like the rabbit.
func rabbitLine(command string, dm *nnf.DataMovement) string {
	c := &dm.Spec.UserConfig
	for _, r := range [][2]string{
		{"$HOSTFILE", "/tmp/hostfile"}, {"$UID", "1001"}, {"$GID", "100"}, {"$SRC", dm.Spec.Source.Path}, {"$DEST", dm.Spec.Destination.Path},
	} {
		command = strings.ReplaceAll(command, r[0], r[1])
	}
	for _, o := range [][2]string{{"mpirun", c.MPIRunOptions}, {"dcp", c.DCPOptions}} {
		if o[1] != "" {
			command = strings.Replace(command, o[0], o[0]+" "+o[1], 1)
		}
	}
	return command
}

// shell runs lines in bash with fakes of mpirun and dcp that print their arguments.
type shell struct{ dir string }

func newShell(t testing.TB) *shell {
	t.Helper()
	require.Tool(t, "bash")
	dir := t.TempDir()
	for _, name := range []string{"mpirun", "dcp"} {
		text := "#!/bin/bash\nprintf '%s\\0' \"${0##*/}\" \"$@\"\n"
		if err := executable.Write(filepath.Join(dir, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return &shell{dir}
}

// run returns the arguments of the first program. It fails if another program prints
// anything or if a file is created.
func (s *shell) run(t testing.TB, line, locale string) []string {
	t.Helper()
	work := t.TempDir()
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir = work
	cmd.Env = []string{"PATH=" + s.dir + ":/usr/bin:/bin", "LC_ALL=" + locale, "HOME=/root"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%q", line, err, out)
	}
	if files, _ := os.ReadDir(work); len(files) > 0 {
		t.Fatalf("%q created the file %s", line, files[0].Name())
	}
	words := strings.Split(string(out), "\x00")
	return words[:len(words)-1]
}

// wantWords returns the expected arguments for the usual profile.
func wantWords(dm *nnf.DataMovement) []string {
	c := &dm.Spec.UserConfig
	return slices.Concat([]string{"mpirun"}, strings.Fields(c.MPIRunOptions),
		[]string{"--allow-run-as-root", "--hostfile", "/tmp/hostfile", "dcp"}, strings.Fields(c.DCPOptions),
		[]string{"--progress", "1", "--uid", "1001", "--gid", "100", dm.Spec.Source.Path, dm.Spec.Destination.Path})
}

// attacks are texts that have an effect in a shell or in getopt.
var attacks = []string{
	";touch x", "&touch x", "|touch x", "$(touch x)", "`touch x`", "\ntouch x\n", "\rtouch x", ">x", "<(touch x)", "a b", "a\tb", "'", "\"", "\\", "{a,b}", "*", "?",
	"[a]", "~", "#", "!x", "$UID", "${PATH}", "$HOSTFILE", "$SRC", "=x", "%1", "^a^b", "\u00a0x", "\u2003x", "\xa0x", "\x00", "\x1b[2J", "--", " -- ", " --uid 0", " --gid=0 ", "-U0",
	" /bin/sh", " : sh", "a=b", ":~", "..", "/../x", "é", "数据", "dcp", "mpirun", "(id)", "&&id", "||id", "a;b", "$'x'", "$\"x\"", "2>x",
}

// All texts that pass the checks reach the programs unchanged through bash. Each attack
// is used in each field: alone, as a prefix and as a suffix.
func TestNoShellInjection(t *testing.T) {
	s := newShell(t)
	passed := 0
	for _, mode := range []OptionMode{OptionsList, OptionsAny} {
		o := options(t, mode)
		for _, attack := range attacks {
			for _, text := range []string{attack, "a" + attack, attack + "b", "-p" + attack, "--my-value a" + attack, "--mca btl a" + attack} {
				for _, r := range []Request{
					{Source: mount0 + "/" + text, Destination: "/lus/global/x"},
					{Source: mount0 + "/x", Destination: "/lus/global/" + text},
					{Source: mount0 + "/x", Destination: "/lus/global/x", DCPOptions: text},
					{Source: mount0 + "/x", Destination: "/lus/global/x", MPIRunOptions: text},
				} {
					r.Workflow = job7
					if r.Check(o) != nil {
						continue
					}
					p := parts("gfs2")
					p.Request, p.Source = r, strings.Replace(r.Source, mount0, mount0+"/rabbit-01-3", 1)
					dm, err := Object(p)
					if err != nil {
						t.Fatal(err)
					}
					locale := []string{"C", "C.UTF-8"}[passed%2]
					passed++
					if got, want := s.run(t, rabbitLine(usualProfile, dm), locale), wantWords(dm); !slices.Equal(got, want) {
						t.Errorf("%q\ngot  %q\nwant %q", text, got, want)
					}
				}
			}
		}
	}
	if passed < 40 {
		t.Errorf("only %d requests passed the checks, so the test is meaningless", passed)
	}
}

// The test above can fail: without the checks, the shell runs an injected command.
func TestShellInjectionWithoutChecks(t *testing.T) {
	s := newShell(t)
	dm := movement()
	dm.Spec.UserConfig.DCPOptions = "-p;printf 'x\\0'"
	if got := s.run(t, rabbitLine(usualProfile, dm), "C"); slices.Equal(got, wantWords(dm)) {
		t.Errorf("%q", got)
	}
}

func TestCheckCommand(t *testing.T) {
	for _, c := range []struct{ command, dcp, mpirun, source, want string }{
		{usualProfile, "-p", "-np 2", "/a", ""},
		{usualProfile, "-p", "", "/a/dcp/b", ""},
		{"/usr/bin/dcp $SRC $DEST", "-p", "", "/a", ""},
		{"rsync $SRC $DEST", "", "", "/a/dcp", ""},
		{"rsync $SRC $DEST", " ", " ", "/a/dcp", ""},
		{"rsync $SRC $DEST", "-p", "", "/a/dcp", "does not run dcp"},
		{"", "-p", "", "/a", "does not run dcp"},
		{"my-dcp-wrapper $SRC; dcp", "-p", "", "/a", "does not run dcp"},
		{"dcpx $SRC", "-p", "", "/a", "does not run dcp"},
		{"dcp $SRC", "", "-np 2", "/a", "does not run mpirun"},
		{"test -e $SRC && dcp $SRC $DEST", "-p", "", "/a/dcp x", "before it runs dcp"},
		{"test -e $SRC && dcp $SRC $DEST", "-p", "", "/a/x", ""},
	} {
		dm := movement()
		dm.Spec.Source.Path = c.source
		dm.Spec.UserConfig.DCPOptions, dm.Spec.UserConfig.MPIRunOptions = c.dcp, c.mpirun
		err := checkCommand(c.command, dm)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
