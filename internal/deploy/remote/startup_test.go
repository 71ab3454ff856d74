package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startUp is what a start-up file does before a command runs, and the expected outcome.
type startUp struct {
	name, text string
	kind       Kind   // of the error, if there is one
	cause      string // "": the right answer
}

// startUps are the files of testdata and some that cannot be worked around.
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
		startUp{"reads all", "cat >/dev/null\n", Disturbed, "the start-up files of the login shell on x read standard input"},
		startUp{"never ends", "sleep 20 &\nwait\n", NoShell, "the login has not ended"},
		startUp{"ends the shell", "echo 'no commands here'\nexit 4\n", NoShell, "it ended with exit code 4; it printed: no commands here"},
		startUp{"reads while the script is sent", "dd bs=1 count=100 <&0 >/dev/null 2>&1 & sleep 0.1\n", Disturbed, ""},
	)
}

// The answer is right, or the error names the cause, whatever the start-up files of the
// login shell do. The input of a script never becomes part of it.
func TestStartUpFiles(t *testing.T) {
	for _, tt := range startUps(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			if err := os.WriteFile(filepath.Join(home, ".bashrc"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			// bash reads .bashrc for a command when sshd has started it.
			s := &SSH{
				Program: program(t, command+"exec env -i PATH=/usr/bin:/bin HOSTNAME=x SSH_CLIENT='127.0.0.1 1 1' HOME="+home+` bash -c "$last"`),
				Connect: time.Second, Login: 3 * time.Second,
			}
			if tt.name == "reads while the script is sent" {
				disturbed(t, s, home)
				return
			}
			tt.check(t, s, home)
		})
	}
}

// check runs a script that prints its input.
func (tt *startUp) check(t *testing.T, s *SSH, dir string) {
	t.Helper()
	trap := filepath.Join(dir, "sprung")
	text := strings.Repeat("# "+strings.Repeat("x", 70)+"\n", 100) + "while read -r line; do echo \"got $line\"; done\n"
	var want, given strings.Builder
	for i := range 50 {
		fmt.Fprintf(&given, "line %d; touch %s\n", i, trap)
		fmt.Fprintf(&want, "got line %d; touch %s\n", i, trap)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	var out bytes.Buffer
	err := s.Run(ctx, "x", Script{Text: text}, strings.NewReader(given.String()), &out)
	if _, failed := os.Stat(trap); failed == nil {
		t.Error("what the script was given was run")
	}
	e := (*Error)(nil)
	switch {
	case tt.cause == "" && (err != nil || out.String() != want.String()):
		t.Errorf("%#v\n%s", err, out.String())
	case tt.cause != "" && (!errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Text, tt.cause) || e.Hint == ""):
		t.Errorf("%#v", err)
	case tt.cause != "" && out.Len() > 0:
		t.Errorf("%q", out.String())
	}
}

// disturbed: a program takes a part of the script while it is sent. The script does not
// run, and its input is not sent. If the program was too slow, the script runs.
func disturbed(t *testing.T, s *SSH, dir string) {
	t.Helper()
	trap := filepath.Join(dir, "ran")
	given := &reads{Reader: strings.NewReader("secret\n")}
	var out bytes.Buffer
	err := s.Run(t.Context(), "x", Script{Text: strings.Repeat("#\n", 4000) + "touch " + trap + "\n"}, given, &out)
	if _, missing := os.Stat(trap); (missing == nil) != (err == nil) {
		t.Errorf("it was run: %v, error: %v", missing == nil, err)
	}
	if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || e.Kind != Disturbed || given.n > 0) {
		t.Errorf("%#v, %d reads", err, given.n)
	}
}

type reads struct {
	io.Reader
	n int
}

func (r *reads) Read(p []byte) (int, error) {
	r.n++
	return r.Reader.Read(p)
}

// server is a real sshd for one connection at a time, without a port: ssh runs it
// as its ProxyCommand.
type server struct {
	home, sshd string
	options    []string
}

// separation makes the directory that sshd needs where systemd does not start it.
func separation(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Mkdir("/run/sshd", 0o755); err == nil {
		t.Cleanup(func() { _ = os.Remove("/run/sshd") })
	} else if !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

// newServer skips the test where there is no sshd. The login shell is shell, with
// its home directory in home.
func newServer(t *testing.T, shell string) *server {
	t.Helper()
	sshd := "/usr/sbin/sshd"
	for _, tool := range []string{sshd, "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("E2E_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip("apt-get install openssh-server: ", err)
		}
	}
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

// Behind a real sshd the login shell reads its start-up files before the command.
func TestStartUpFilesBehindSSHD(t *testing.T) {
	separation(t)
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
				if program == "bash" || program == "dash" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			t.Parallel()
			s := newServer(t, tt.shell)
			path := filepath.Join(s.home, tt.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(tt.text), 0o600)); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			tt.check(t, &SSH{Options: s.options, Connect: 3 * time.Second, Login: 4 * time.Second}, s.home)
			t.Logf("%.1f s", time.Since(began).Seconds())
		})
	}
}
