package deploycreds

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// script is the one in the documentation.
func script(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/nnf-deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok1 := strings.Cut(string(text), "<!-- credentials.sh: a test runs it against an API server -->\n```sh\n")
	body, _, ok2 := strings.Cut(rest, "\n```\n")
	if !ok1 || !ok2 {
		t.Fatal("there is no script in docs/nnf-deploy.md")
	}
	path := filepath.Join(t.TempDir(), "credentials.sh")
	if err := os.WriteFile(path, []byte(body+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withStandIn is a PATH on which kubectl is what stands in for it.
func withStandIn(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(exe, dir+"/kubectl"); err != nil {
		t.Fatal(err)
	}
	return dir + ":" + os.Getenv("PATH")
}

// shell runs the script in a folder.
func (s *site) shell(path, script, dir string, args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.Context(patience), "sh", append([]string{script}, args...)...)
	cmd.Dir = dir
	// kubectl keeps what it has learned of a server in HOME.
	cmd.Env = []string{"PATH=" + path, "HOME=" + dir, "KUBECONFIG=" + s.kubeconfig}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The script makes the same files as the program.
func TestKubectl(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) { sameFiles(t, withStandIn(t), "clientmountd", "nnf-dm") })
	// No distribution has to have one that knows whoami (1.28), and it takes seconds.
	t.Run("kubectl", func(t *testing.T) {
		if out, err := exec.Command("kubectl", "auth", "whoami", "--help").CombinedOutput(); err != nil {
			t.Skipf("no kubectl of 1.28 or newer here, only the stand-in was used: %v %.80s", err, out)
		}
		sameFiles(t, os.Getenv("PATH"), "clientmountd")
	})
}

func sameFiles(t *testing.T, path string, daemons ...string) {
	s := newSite(t)
	script, dir := script(t), t.TempDir()
	s.works(s.run())
	for _, daemon := range daemons {
		if out, err := s.shell(path, script, dir, daemon); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, file := range []string{"service.token", "service.cert"} {
			if got := s.read(dir + "/credentials/" + daemon + "/" + file); got != s.read(s.out+"/"+daemon+"/"+file) {
				t.Errorf("%s of %s: %q", file, daemon, got)
			}
		}
	}
	list, err := os.ReadDir(dir + "/credentials/clientmountd")
	if err != nil || len(list) != 2 {
		t.Errorf("left behind: %v %v", list, err)
	}
	s.out = dir + "/credentials/clientmountd"
	before := s.read(s.out + "/service.token")
	if out, err := s.shell(path, script, dir, "clientmountd", "bound"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if status := s.asDaemon(lab.Path("ClientMount", s.Node, "")); status != 200 || s.read(s.out+"/service.token") == before {
		t.Errorf("with the new token: %d", status)
	}
}

// It tries what it has fetched as well, and keeps what was there.
func TestKubectlRefuses(t *testing.T) {
	path := withStandIn(t)
	s := newSite(t)
	text, err := os.ReadFile(script(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string]string{
		"less": "system:serviceaccount:" + s.namespace + ":less may not watch clientmounts", "wrong": "the token is that of system:serviceaccount:" + s.namespace + ":less",
	} {
		s.account(name)
		if name == "less" {
			s.secret(name, name)
			s.grant(name, less(t, rules(t, "clientmountd"), "clientmounts", "watch"))
		} else {
			s.account("less")
			s.opaque(name, s.token("less"), s.Cluster.CA())
		}
		script, dir := filepath.Join(t.TempDir(), "script"), t.TempDir()
		changed := strings.Replace(string(text), "ns=nnf-system account=nnf-clientmount", "ns="+s.namespace+" account="+name, 1)
		if err := os.WriteFile(script, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := s.shell(path, script, dir, "clientmountd")
		if list, _ := os.ReadDir(dir + "/credentials/clientmountd"); err == nil || !strings.Contains(out, words) || len(list) != 0 {
			t.Errorf("%s: %v %v\n%s", name, err, list, out)
		}
	}
}

func TestScriptLint(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed, make lint installs it: ", err)
	}
	if out, err := exec.Command("shellcheck", "--shell=sh", script(t)).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
