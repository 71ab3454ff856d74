package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// rpmlint finds no error in any package, binary or source. What it calls a
// warning is printed, not judged.
func TestLint(t *testing.T) {
	if _, err := exec.LookPath("rpmlint"); err != nil {
		if os.Getenv(requireVar) != "" {
			t.Fatal(err)
		}
		t.Skip("no rpmlint here: ", err)
	}
	b := must(t, first)
	args := []string{"--config", filepath.Join(root, "packaging/rpmlint.toml"), filepath.Join(b.out, "compute-daemons-0.1.0-1.src.rpm")}
	out, err := command([]string{"PATH=" + harmlessCpio(t) + ":" + os.Getenv("PATH")}, "rpmlint", append(args, b.all(t)...)...)
	if err != nil {
		t.Error(err)
	}
	summary := regexp.MustCompile(`(\d+) packages and \d+ specfiles checked; (\d+) errors, `).FindStringSubmatch(out)
	if summary == nil || summary[1] != "4" || summary[2] != "0" {
		t.Errorf("rpmlint says\n%s", out)
	}
	t.Log(out)
}

// harmlessCpio is a folder for PATH. rpmlint unpacks packages with cpio, and
// those that nfpm makes have absolute names inside: as root it would unpack them
// over this machine.
func harmlessCpio(t *testing.T) string {
	t.Helper()
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nexec " + cpio + " --no-absolute-filenames \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "cpio"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
