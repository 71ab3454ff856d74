package deploycreds

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// script writes the script of docs/credentials.md to a file and returns its path.
func script(t *testing.T) string {
	t.Helper()
	blocks := manual.Commands(t, "../../..", "docs/credentials.md", "internal/e2e/deploycreds TestKubectl")
	if len(blocks) != 1 {
		t.Fatalf("docs/credentials.md has %d scripts, want 1", len(blocks))
	}
	path := filepath.Join(t.TempDir(), "credentials.sh")
	if err := os.WriteFile(path, []byte(blocks[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// withKubectl returns a PATH that starts with a directory that contains only kubectl.
func withKubectl(t *testing.T) string {
	t.Helper()
	kubectl, err := lab.Binary("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(kubectl, dir+"/kubectl"); err != nil {
		t.Fatal(err)
	}
	return dir + ":" + os.Getenv("PATH")
}

// shell runs the script in a directory.
func (s *site) shell(path, script, dir string, args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.Context(patience), "sh", append([]string{script}, args...)...)
	cmd.Dir = dir
	// kubectl caches discovery data in HOME.
	cmd.Env = []string{"PATH=" + path, "HOME=" + dir, "KUBECONFIG=" + s.kubeconfig}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The script writes the same files as nnf-deploy.
func TestKubectl(t *testing.T) {
	s := newSite(t)
	path, script, dir := withKubectl(t), script(t), t.TempDir()
	s.works(s.run())
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
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

// The script verifies the credentials, too, and keeps the existing files after an error.
func TestKubectlRefuses(t *testing.T) {
	path := withKubectl(t)
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
	require.Tool(t, "shellcheck")
	if out, err := exec.Command("shellcheck", "--shell=sh", script(t)).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
