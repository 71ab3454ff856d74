package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// nfpm and rpmbuild take the same scriptlets, and none is forgotten.
func TestScriptletsAreUsed(t *testing.T) {
	names := map[string]string{"pre": "preinstall", "post": "postinstall", "preun": "preremove", "postun": "postremove"}
	files, err := filepath.Glob("scriptlets/*.sh")
	if err != nil || len(files) < 7 {
		t.Fatalf("%q, %v", files, err)
	}
	spec := read(t, "compute-daemons.spec")
	for _, file := range files {
		stem := strings.TrimSuffix(filepath.Base(file), ".sh")
		cut := strings.LastIndex(stem, "-")
		pkg, kind := stem[:cut], stem[cut+1:]
		if line := "%" + kind + " -n " + pkg + " -f packaging/" + file + "\n"; !strings.Contains(spec, line) {
			t.Errorf("the spec lacks %q", line)
		}
		if line := "  " + names[kind] + ": packaging/" + file + "\n"; !strings.Contains(read(t, "nfpm/"+pkg+".yaml"), line) {
			t.Errorf("nfpm/%s.yaml lacks %q", pkg, line)
		}
	}
}

// A scriptlet that fails leaves an rpm transaction half done; one that is not
// silent is noise in each image build. None goes near a mount, or deletes.
func TestScriptletsAreHarmless(t *testing.T) {
	files, _ := filepath.Glob("scriptlets/*.sh")
	word := regexp.MustCompile(`(?:^|[^-\w])(u?mount|rm|mv|lvchange|vgchange|restart|kill)\b`)
	for _, file := range files {
		text := read(t, file)
		if !strings.HasSuffix(text, "\nexit 0\n") {
			t.Errorf("%s does not end with exit 0", file)
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			command, _, _ := strings.Cut(strings.TrimPrefix(line, "if "), " ")
			switch command {
			case "systemctl", "journalctl", "systemd-sysusers", "systemd-tmpfiles", "groupadd", "useradd", "getent", "/usr/lib/systemd/systemd-modules-load":
				if !strings.Contains(line, ">/dev/null 2>&1") {
					t.Errorf("%s is not silent: %s", file, line)
				}
			}
			if found := word.FindString(line); found != "" && !strings.HasPrefix(line, "#") {
				t.Errorf("%s uses %s: %s", file, found, line)
			}
		}
		if out, err := exec.Command("sh", "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", file, err, out)
		}
	}
}
