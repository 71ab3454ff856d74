package units

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// between returns the text between two texts.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, text, ok1 := strings.Cut(text, from)
	text, _, ok2 := strings.Cut(text, to)
	if !ok1 || !ok2 {
		t.Fatalf("no text between %q and %q", from, to)
	}
	return text
}

// named returns the directives in a text, written as `Name=`, sorted.
func named(text string) (keys []string) {
	for _, m := range regexp.MustCompile("`([A-Za-z]+)=`").FindAllStringSubmatch(text, -1) {
		keys = append(keys, m[1])
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// rows returns the lines of the tables in a text.
func rows(text string) string {
	return strings.Join(regexp.MustCompile(`(?m)^\|.*$`).FindAllString(text, -1), "\n")
}

// docs/units.md explains exactly the directives of the units.
func TestManualExplainsTheDirectives(t *testing.T) {
	manual := page(t, "units.md")
	evident := []string{"Description", "Documentation", "ExecStart", "RuntimeDirectory", "WantedBy", "Alias", "Also"}
	for heading, files := range map[string][]string{"## The unit of clientmountd\n": {mounter}, "## The units of nnf-dm\n": {copier, socketUnit, timerUnit}} {
		told := named(rows(between(t, manual, "\n"+heading, "\n## ")))
		var used []string
		for _, file := range files {
			for _, d := range readUnit(t, file) {
				used = append(used, d.key)
			}
		}
		for _, key := range used {
			if !slices.Contains(told, key) && !slices.Contains(evident, key) {
				t.Errorf("%s does not explain %s=", strings.TrimSpace(heading), key)
			}
		}
		for _, key := range told {
			if !slices.Contains(used, key) {
				t.Errorf("%s explains %s=, which no unit has", strings.TrimSpace(heading), key)
			}
		}
	}
}

// docs/units.md lists the forbidden directives, and the versions of systemd that support
// newer ones.
func TestManualHasTheTables(t *testing.T) {
	manual := page(t, "units.md")
	if got, want := named(between(t, manual, "<!-- hides -->", "<!-- end -->")), slices.Sorted(maps.Keys(systemd.Hiding)); !slices.Equal(got, want) {
		t.Errorf("docs/units.md lists\n%q\nwant\n%q", got, want)
	}
	told := map[string]int{}
	for line := range strings.Lines(rows(between(t, manual, "\n## Older systemd\n", "\n## "))) {
		var from int
		if _, err := fmt.Sscanf(line, "| %d |", &from); err == nil {
			for _, key := range named(line) {
				told[key] = from
			}
		}
	}
	if !maps.Equal(told, since) {
		t.Errorf("docs/units.md has\n%v\nwant\n%v", told, since)
	}
}

// The files that the guides mention exist, and the guides mention all examples.
func TestManualNamesTheExamples(t *testing.T) {
	manual := page(t, "install.md") + page(t, "units.md") + page(t, "credentials.md") + page(t, "tuning.md")
	files := append(tree(t, "systemd"), append(tree(t, "packaging/manifests"), tree(t, "packaging/examples")...)...)
	for _, m := range regexp.MustCompile("`([a-z./-]*[0-9a-z-]+\\.(conf|yaml))`").FindAllStringSubmatch(manual, -1) {
		if filepath.Base(m[1]) != "override.conf" && !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, "/"+m[1]) }) {
			t.Errorf("%s does not exist", m[1])
		}
	}
	for _, f := range append(tree(t, "systemd/examples"), tree(t, "packaging/manifests")...) {
		if !strings.Contains(manual, filepath.Base(f)) {
			t.Errorf("%s is not mentioned", f)
		}
	}
}

// The lines of units in docs/units.md are in the units.
func TestManualShowsTheUnits(t *testing.T) {
	for heading, files := range map[string][]string{"## The unit of clientmountd\n": {mounter}, "## The units of nnf-dm\n": {copier, socketUnit}} {
		var have []string
		for _, file := range files {
			for _, d := range readUnit(t, file) {
				have = append(have, d.key+"="+d.value)
			}
		}
		shown := 0
		for line := range strings.Lines(between(t, page(t, "units.md"), "\n"+heading, "\n## ")) {
			if line = strings.TrimSpace(line); regexp.MustCompile(`^[A-Za-z]+=`).MatchString(line) {
				shown++
				if !slices.Contains(have, line) {
					t.Errorf("%s shows %s, which no unit has", strings.TrimSpace(heading), line)
				}
			}
		}
		if shown < 5 {
			t.Errorf("%s shows %d lines", strings.TrimSpace(heading), shown)
		}
	}
}
