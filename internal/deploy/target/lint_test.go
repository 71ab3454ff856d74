package target

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// The scripts as they are sent, and those that stand in on nodes. What is on a
// command line is the same for every node and every content.
func TestScriptsLint(t *testing.T) {
	for _, s := range []remote.Script{probeScript, applyScript, collectScript, {Name: "switch", Text: bare(switchText)}} {
		for _, shell := range []string{"dash", "bash", "busybox"} {
			args := []string{shell, "-n"}
			if shell == "busybox" {
				args = []string{shell, "sh", "-n"}
			}
			if _, err := exec.LookPath(shell); err != nil {
				t.Logf("%s is not here", shell)
				continue
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = strings.NewReader(s.Text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v %s", s.Name, shell, err, out)
			}
		}
		if strings.Contains(s.Text, "\n#") || strings.HasPrefix(s.Text, "#") {
			t.Errorf("%s is sent with its comments", s.Name)
		}
	}
	if _, err := exec.LookPath("shellcheck"); err != nil {
		if os.Getenv("E2E_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("shellcheck is not installed, make lint installs it: ", err)
	}
	stubs, err := filepath.Glob("../fakenode/bin/*")
	if err != nil || len(stubs) < 5 {
		t.Fatal(stubs, err)
	}
	if out, err := exec.Command("shellcheck", stubs...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
