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
)

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// between returns what stands between two texts.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, text, ok1 := strings.Cut(text, from)
	text, _, ok2 := strings.Cut(text, to)
	if !ok1 || !ok2 {
		t.Fatalf("there is nothing between %q and %q", from, to)
	}
	return text
}

// named are the directives that a text names, as `Name=`, sorted.
func named(text string) (keys []string) {
	for _, m := range regexp.MustCompile("`([A-Za-z]+)=`").FindAllStringSubmatch(text, -1) {
		keys = append(keys, m[1])
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// rows are the lines of a text's tables.
func rows(text string) string {
	return strings.Join(regexp.MustCompile(`(?m)^\|.*$`).FindAllString(text, -1), "\n")
}

// The manual says of each setting of the units what it buys, and of no other.
func TestManualHasTheSettings(t *testing.T) {
	install := page(t, "install.md")
	evident := []string{"Description", "Documentation", "ExecStart", "RuntimeDirectory", "WantedBy", "Alias", "Also"}
	for heading, files := range map[string][]string{"## The unit of clientmountd\n": {mounter}, "## The units of nnf-dm\n": {copier, socketUnit}} {
		told := named(rows(between(t, install, "\n"+heading, "\n## ")))
		var used []string
		for _, file := range files {
			for _, d := range readUnit(t, file) {
				used = append(used, d.key)
			}
		}
		for _, key := range used {
			if !slices.Contains(told, key) && !slices.Contains(evident, key) {
				t.Errorf("%s does not say what %s= buys", strings.TrimSpace(heading), key)
			}
		}
		for _, key := range told {
			if !slices.Contains(used, key) {
				t.Errorf("%s explains %s=, which is in no unit", strings.TrimSpace(heading), key)
			}
		}
	}
}

// It lists what must not be added, all of it, and from which systemd on something holds.
func TestManualHasTheTables(t *testing.T) {
	install := page(t, "install.md")
	if got, want := named(between(t, install, "<!-- hides -->", "<!-- end -->")), slices.Sorted(maps.Keys(hides)); !slices.Equal(got, want) {
		t.Errorf("it lists\n%q\nand the test\n%q", got, want)
	}
	told := map[string]int{}
	for line := range strings.Lines(rows(between(t, install, "\n## Older systemd\n", "\n## "))) {
		var from int
		if _, err := fmt.Sscanf(line, "| %d |", &from); err == nil {
			for _, key := range named(line) {
				told[key] = from
			}
		}
	}
	if !maps.Equal(told, since) {
		t.Errorf("it says\n%v\nand the test\n%v", told, since)
	}
}

// Every file that it names is there, and every example is named.
func TestManualNamesTheExamples(t *testing.T) {
	install := page(t, "install.md")
	files := append(tree(t, "systemd"), append(tree(t, "packaging/manifests"), tree(t, "packaging/examples")...)...)
	for _, m := range regexp.MustCompile("`([a-z./-]*[0-9a-z-]+\\.(conf|yaml))`").FindAllStringSubmatch(install, -1) {
		if filepath.Base(m[1]) != "override.conf" && !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, "/"+m[1]) }) {
			t.Errorf("there is no %s", m[1])
		}
	}
	for _, f := range append(tree(t, "systemd/examples"), tree(t, "packaging/manifests")...) {
		if !strings.Contains(install, filepath.Base(f)) {
			t.Errorf("%s is not mentioned", f)
		}
	}
}

// The daemons' own pages show lines of the units as they are.
func TestManualShowsTheUnits(t *testing.T) {
	for name, files := range map[string][]string{"clientmountd.md": {mounter}, "nnf-dm.md": {copier, socketUnit}} {
		var have []string
		for _, file := range files {
			for _, d := range readUnit(t, file) {
				have = append(have, d.key+"="+d.value)
			}
		}
		shown := 0
		for line := range strings.Lines(between(t, page(t, name), "\n## Unit", "\n## ")) {
			if line = strings.TrimSpace(line); regexp.MustCompile(`^[A-Za-z]+=`).MatchString(line) {
				shown++
				if !slices.Contains(have, line) {
					t.Errorf("%s shows %s, which is in no unit", name, line)
				}
			}
		}
		if shown < 5 {
			t.Errorf("%s shows %d lines", name, shown)
		}
	}
}
