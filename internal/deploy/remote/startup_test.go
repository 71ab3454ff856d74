package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/sshd"
)

// startUp is what a start-up file does before a command runs, and the expected outcome.
type startUp struct {
	name, text string
	kind       Kind   // of the error, if there is one
	cause      string // "": no error
}

// startUps returns the files in testdata, and some for which an error is expected.
func startUps(t *testing.T) []startUp {
	t.Helper()
	paths, err := filepath.Glob("testdata/bashrc-*")
	if err != nil || len(paths) < 4 {
		t.Fatal(paths, err)
	}
	var list []startUp
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, startUp{name: filepath.Base(path), text: string(text)})
	}
	return append(list,
		startUp{"prints later", "{ for i in 1 2 3 4 5 6 7 8 9; do printf noise; done; } &\n", 0, ""},
		startUp{"reads a line and waits for it", "read answer\n", Disturbed, "the start-up files of the login shell on x read standard input"},
		startUp{"reads to the end", "cat >/dev/null\n", Disturbed, "the start-up files of the login shell on x read standard input"},
		startUp{"never returns", "sleep 60 &\nwait\n", Slow, "the login did not finish"},
		startUp{"exits the shell", "echo 'no commands here'\nexit 4\n", NoShell, "exit code 4; it printed: no commands here"},
		startUp{"reads while the script is sent", "dd bs=1 count=100 <&0 >/dev/null 2>&1 & sleep 0.1\n", Disturbed, ""},
	)
}

// Whatever the start-up files of the login shell do, the answer is correct, or the error gives
// the cause. The input of a script never becomes part of the script.
func TestStartUpFiles(t *testing.T) {
	for _, tt := range startUps(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			if err := os.WriteFile(filepath.Join(home, ".bashrc"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			// bash with -c reads .bashrc if sshd has started it.
			s := tt.limits(&SSH{
				Program: program(t, command+"exec env -i PATH=/usr/bin:/bin HOSTNAME=x SSH_CLIENT='127.0.0.1 1 1' HOME="+home+` bash -c "$last"`),
			})
			if tt.name == "reads while the script is sent" {
				disturbed(t, s, home)
				return
			}
			tt.check(t, s, home)
		})
	}
}

// limits sets time limits: for an expected end at a limit they are short, otherwise a busy machine
// does not reach them. To find an error about input, the first login must reach its limit and the second
// one must not: check raises a short limit until this is so.
func (tt *startUp) limits(s *SSH) *SSH {
	switch s.Connect, s.Login = 5*time.Second, 3*time.Minute; tt.kind {
	case Disturbed:
		s.Connect, s.Login = 2*time.Second, 3*time.Second
	case Slow:
		s.Connect, s.Login = 2*time.Second, 6*time.Second
	}
	return s
}

// check runs a script that prints its input, and checks its output.
func (tt *startUp) check(t *testing.T, s *SSH, dir string) {
	t.Helper()
	trap := filepath.Join(dir, "executed")
	text := strings.Repeat("# "+strings.Repeat("x", 70)+"\n", 100) + "while read -r line; do echo \"got $line\"; done\n"
	var want, input strings.Builder
	for i := range 50 {
		fmt.Fprintf(&input, "line %d; touch %s\n", i, trap)
		fmt.Fprintf(&want, "got line %d; touch %s\n", i, trap)
	}
	var out bytes.Buffer
	var err error
	e := (*Error)(nil)
	for {
		err = s.Run(t.Context(), "x", Script{Text: text}, strings.NewReader(input.String()), &out)
		if tt.kind != Disturbed || !errors.As(err, &e) || e.Kind != Slow || s.Login > time.Minute {
			break
		}
		s.Login *= 3 // this machine is busy: even a login that does not wait for input took longer
	}
	if _, failed := os.Stat(trap); failed == nil {
		t.Error("the input of the script was executed")
	}
	switch {
	case tt.cause == "" && (err != nil || out.String() != want.String()):
		t.Errorf("%#v\n%s", err, out.String())
	case tt.cause != "" && (!errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Text, tt.cause) || e.Hint == ""):
		t.Errorf("%#v", err)
	case tt.cause != "" && out.Len() > 0:
		t.Errorf("%q", out.String())
	}
}

// disturbed checks a session in which another program reads a part of the script. The script
// does not run, and its input is not sent. If the other program is too slow, the script runs.
func disturbed(t *testing.T, s *SSH, dir string) {
	t.Helper()
	trap := filepath.Join(dir, "ran")
	input := &countingReader{Reader: strings.NewReader("secret\n")}
	var out bytes.Buffer
	err := s.Run(t.Context(), "x", Script{Text: strings.Repeat("#\n", 4000) + "touch " + trap + "\n"}, input, &out)
	if _, missing := os.Stat(trap); (missing == nil) != (err == nil) {
		t.Errorf("the script has run: %v, error: %v", missing == nil, err)
	}
	if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || e.Kind != Disturbed || input.n > 0) {
		t.Errorf("%#v, %d reads", err, input.n)
	}
}

// countingReader counts the calls of Read.
type countingReader struct {
	io.Reader
	n int
}

func (r *countingReader) Read(p []byte) (int, error) {
	r.n++
	return r.Reader.Read(p)
}

// server is a real sshd without a port, for one connection at a time: ssh starts it as its
// ProxyCommand.
type server struct {
	home, sshd string
	options    []string
}

// newServer skips the test if sshd is not installed. The home directory of the login shell is
// home.
func newServer(t *testing.T, shell string) *server {
	t.Helper()
	sshd := "/usr/sbin/sshd"
	require.Tool(t, "/usr/sbin/sshd", "ssh", "ssh-keygen")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &server{home: t.TempDir(), sshd: sshd}
	for _, key := range []string{"host", "key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	config := "HostKey " + dir + "/host\nAuthorizedKeysFile " + dir + "/key.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n" +
		"PrintMotd no\nPrintLastLog no\nForceCommand exec env -u SHLVL HOME=" + s.home + " " + shell + " -c \"$SSH_ORIGINAL_COMMAND\"\n"
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.options = []string{
		"-F/dev/null", "ProxyCommand=" + sshd + " -i -e -f " + dir + "/config 2>" + dir + "/log", "User=" + me.Username, "IdentityFile=" + dir + "/key", "IdentitiesOnly=yes",
		"IdentityAgent=none", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null", "LogLevel=ERROR",
	}
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "log")); t.Failed() && err == nil {
			t.Logf("sshd: %s", log)
		}
	})
	return s
}

// With a real sshd, the login shell reads its start-up files before it runs the command.
func TestStartUpFilesWithSSHD(t *testing.T) {
	sshd.Directory(t)
	const title, reads = "printf '\\033]0;node\\007'\n", "read answer\n"
	type login struct{ shell, file string }
	bash := login{"bash", ".bashrc"}
	others := []struct {
		login
		title, reads string
	}{
		{login{"tcsh", ".cshrc"}, "echo -n title; echo banner\n", "set answer = $<\n"},
		{login{"csh", ".cshrc"}, "echo -n title\n", "set answer = $<\n"},
		{login{"fish", ".config/fish/config.fish"}, "echo -n title; echo banner\n", "read answer >/dev/null\n"},
		{login{"zsh", ".zshenv"}, title, reads},
		{login{"ksh", ".none"}, "", ""},
		{login{"dash", ".none"}, "", ""},
		{login{"busybox sh", ".none"}, "", ""},
	}
	type round struct {
		login
		startUp
	}
	var rounds []round
	for _, s := range startUps(t) {
		if s.name != "reads while the script is sent" {
			rounds = append(rounds, round{bash, s})
		}
	}
	for _, o := range others {
		rounds = append(rounds, round{o.login, startUp{name: "prints", text: o.title}})
		if o.reads != "" {
			rounds = append(rounds, round{o.login, startUp{"reads", o.reads, Disturbed, "read standard input"}})
		}
	}
	for _, tt := range rounds {
		t.Run(tt.shell+" "+tt.name, func(t *testing.T) {
			program := strings.Fields(tt.shell)[0]
			if _, err := exec.LookPath(program); err != nil {
				require.Missing(t, err.Error())
			}
			t.Parallel()
			s := newServer(t, tt.shell)
			path := filepath.Join(s.home, tt.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(tt.text), 0o600)); err != nil {
				t.Fatal(err)
			}
			started := time.Now()
			tt.check(t, tt.limits(&SSH{Options: s.options}), s.home)
			t.Logf("%.1f s", time.Since(started).Seconds())
		})
	}
}

// A login that takes longer than the usual limit succeeds: a slow node is not broken.
func TestSlowLogin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const limit = 5 * time.Second
	// The second login takes as long as the first one.
	s := &SSH{Program: program(t, command+"echo x >>"+dir+"/logins; sleep 6; exec sh -c \"$last\""), Connect: limit / 2, Login: limit / 2}
	var out bytes.Buffer
	if err := s.Run(t.Context(), "x", Script{Text: "read -r line; echo \"got $line\"\n"}, strings.NewReader("it\n"), &out); err != nil || out.String() != "got it\n" {
		t.Errorf("%q %v", out.String(), err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "logins")); err != nil || string(data) != "x\nx\n" {
		t.Errorf("%q %v: the login was not slow", data, err)
	}
}

// The answer of a script that starts too late does not count, because its input was not sent.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	s := &SSH{Program: program(t, command+`exec sh -c 'dd() { sleep 5; command dd "$@"; }; '"eval \"\${1#exec sh -c ?}\"" x "${last%?}"`), Connect: 2 * time.Second, Login: 2 * time.Second}
	input := &countingReader{Reader: strings.NewReader("it\n")}
	var out bytes.Buffer
	err := s.Run(t.Context(), "x", Script{Text: "read -r line; echo \"got $line\"\n"}, input, &out)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != Slow || !strings.Contains(e.Text, "the script did not start within 4s") || input.n > 0 {
		t.Errorf("%#v, %d reads", err, input.n)
	}
}
