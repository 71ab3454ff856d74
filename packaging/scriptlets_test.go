package packaging

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each scriptlet is used by the package and at the time in its name.
func TestScriptletsAreUsed(t *testing.T) {
	names := map[string]string{"preinstall": "pre", "postinstall": "post", "preremove": "preun", "postremove": "postun"}
	files, err := filepath.Glob("scriptlets/*.sh")
	if err != nil || len(files) < 7 {
		t.Fatalf("%q, %v", files, err)
	}
	var used []string
	for _, p := range packages(t) {
		for kind, file := range p.Scripts {
			used = append(used, strings.TrimPrefix(file, "packaging/"))
			if want := "packaging/scriptlets/" + p.Name + "-" + names[kind] + ".sh"; file != want {
				t.Errorf("the scriptlet %s of %s is %s, want %s", kind, p.Name, file, want)
			}
		}
	}
	if slices.Sort(used); !slices.Equal(used, files) {
		t.Errorf("used: %q, existing: %q", used, files)
	}
}

// No scriptlet fails, because that leaves an rpm transaction incomplete, or prints
// anything, because that clutters image builds. None changes mounts or deletes files.
func TestScriptletsAreHarmless(t *testing.T) {
	files, _ := filepath.Glob("scriptlets/*.sh")
	word := regexp.MustCompile(`(?:^|[^-\w])(u?mount|rm|mv|lvchange|vgchange|restart|kill)\b`)
	for _, file := range files {
		text := read(t, file)
		if !strings.HasSuffix(text, "\nexit 0\n") {
			t.Errorf("the last line of %s is not exit 0", file)
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

// nnf-dm-pre.sh creates the user with the line of sysusers.d, which is not installed yet
// when it runs.
func TestUserIsThatOfSysusers(t *testing.T) {
	script := read(t, "scriptlets/nnf-dm-pre.sh")
	found := false
	for line := range strings.Lines(read(t, "../systemd/sysusers.d/nnf-dm.conf")) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		found = true
		if !strings.Contains(script, "\n"+line) {
			t.Errorf("the scriptlet lacks %q", line)
		}
	}
	if !found {
		t.Error("sysusers.d does not create a user")
	}
}
