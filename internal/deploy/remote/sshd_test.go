package remote

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
