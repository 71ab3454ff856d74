package catalog

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

func all(t *testing.T) []Kind {
	t.Helper()
	kinds, err := All()
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

// Every event of both daemons is explained, once, in three parts.
func TestEveryEventIsExplained(t *testing.T) {
	seen := map[string]int{}
	for _, k := range all(t) {
		seen[k.Event.ID]++
		for part, s := range map[string]string{"what happened": k.What, "for the job": k.Job, "what to do": k.Do} {
			if s == "" || !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") || strings.ContainsAny(s, "\n\t`<>") || strings.Contains(s, "  ") {
				t.Errorf("%s: %s is malformed: %q", k.Event.Name, part, s)
			}
		}
		if k.Subject == "" || strings.HasSuffix(k.Subject, ".") || len(k.Subject) > 79 {
			t.Errorf("%s: subject %q", k.Event.Name, k.Subject)
		}
		for level := range strings.SplitSeq(k.Level, ", ") {
			if !slices.Contains([]string{"debug", "info", "warning", "error"}, level) {
				t.Errorf("%s: level %q", k.Event.Name, level)
			}
		}
	}
	for _, e := range slices.Concat(clientmount.Events(), server.Events(), daemon.Events()) {
		if seen[e.ID] != 1 {
			t.Errorf("%s, %s, is explained %d times", e.Name, e.ID, seen[e.ID])
		}
		delete(seen, e.ID)
	}
	for id := range seen {
		t.Errorf("%s is not an event", id)
	}
}

// A new event without a text and a text without an event are errors.
func TestJoin(t *testing.T) {
	a, b := daemon.Event{ID: "1", Name: "a"}, daemon.Event{ID: "2", Name: "b"}
	for _, tt := range []struct {
		events []daemon.Event
		texts  []explanation
		want   string
	}{
		{[]daemon.Event{a, b}, []explanation{{name: "b"}, {name: "a"}}, ""},
		{[]daemon.Event{a, b}, []explanation{{name: "b"}}, "the event a of x has no text"},
		{[]daemon.Event{a}, []explanation{{name: "b"}, {name: "a"}}, "the text of b matches no event of x"},
		{[]daemon.Event{a}, []explanation{{name: "a"}, {name: "a"}}, "the text of a matches no event of x, or occurs twice"},
		{[]daemon.Event{a, a}, []explanation{{name: "a"}}, "two events named a"},
	} {
		kinds, err := group{[]string{"x"}, tt.events, tt.texts}.join()
		switch {
		case tt.want == "" && (err != nil || len(kinds) != 2 || kinds[0].Event != b || kinds[1].Event != a):
			t.Errorf("%v, %v", kinds, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}

func TestOf(t *testing.T) {
	mine, err := Of("clientmountd")
	if want := len(clientmount.Events()) + len(daemon.Events()); err != nil || len(mine) != want {
		t.Errorf("%d kinds, want %d: %v", len(mine), want, err)
	}
	if _, err := Of("unknown"); err == nil {
		t.Error("returned records of a program without records")
	}
}

// The file is what catalog_import_file of systemd reads: a line "-- ID", headers
// up to an empty line, text. A comment would be left out of the text.
func TestWrite(t *testing.T) {
	file := Write(all(t))
	entries := strings.Split(file, "\n-- ")
	if got, want := len(entries)-1, len(all(t)); got != want {
		t.Fatalf("%d entries, want %d", got, want)
	}
	header := regexp.MustCompile(`^(Subject|Defined-By|Support|Documentation): \S`)
	for _, entry := range entries[1:] {
		head, body, ok := strings.Cut(entry, "\n\n")
		id, fields, _ := strings.Cut(head, "\n")
		if !ok || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
			t.Fatalf("entry %q", entry)
		}
		for line := range strings.SplitSeq(fields, "\n") {
			if !header.MatchString(line) {
				t.Errorf("%s: header %q", id, line)
			}
		}
		if n := strings.Count(fields, "Documentation: man:"); n < 1 || n > 2 {
			t.Errorf("%s: %d pages", id, n)
		}
		if parts := strings.Split(strings.TrimSpace(body), "\n\n"); len(parts) != 3 {
			t.Errorf("%s: %d paragraphs", id, len(parts))
		}
		for line := range strings.SplitSeq(body, "\n") {
			if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") || len(line) > columns {
				t.Errorf("%s: line %q", id, line)
			}
		}
	}
}

// journalctl accepts the file and finds every entry, with its complete text.
func TestJournalctlReadsIt(t *testing.T) {
	require.Tool(t, "journalctl")
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
