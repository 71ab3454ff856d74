package catalog

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// journalctl itself takes the file and finds every entry, with the text whole.
func TestJournalctlReadsIt(t *testing.T) {
	if _, err := exec.LookPath("journalctl"); err != nil {
		if os.Getenv("E2E_REQUIRE") != "" {
			t.Fatalf("the catalogue cannot be compiled: %v; install systemd", err)
		}
		t.Skipf("the catalogue cannot be compiled: %v; install systemd", err)
	}
	kinds := all(t)
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/catalog")
	for _, d := range []string{dir, filepath.Join(root, "var/lib/systemd/catalog")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "compute-daemons.catalog"), []byte(Write(kinds)), 0o644); err != nil {
		t.Fatal(err)
	}
	journalctl := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("journalctl", append([]string{"--root=" + root, "--no-pager"}, args...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("journalctl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if said := journalctl("--update-catalog"); said != "" {
		t.Errorf("journalctl --update-catalog: %s", said)
	}
	list, dump := journalctl("--list-catalog"), journalctl("--dump-catalog")
	if n := strings.Count(strings.TrimSpace(list), "\n") + 1; n != len(kinds) {
		t.Errorf("%d entries, want %d", n, len(kinds))
	}
	for _, k := range kinds {
		if !strings.Contains(list, k.Event.ID+" compute-daemons: "+k.Subject+"\n") {
			t.Errorf("%s is not in the list", k.Event.Name)
		}
		_, entry, _ := strings.Cut(dump, "-- "+k.Event.ID+"\n")
		entry, _, _ = strings.Cut(entry, "\n-- ")
		entry = strings.Join(strings.Fields(entry), " ")
		for _, want := range []string{k.What, "For the job: " + k.Job, "What to do: " + k.Do} {
			if !strings.Contains(entry, want) {
				t.Errorf("%s: no %q in %q", k.Event.Name, want, entry)
			}
		}
	}
}
