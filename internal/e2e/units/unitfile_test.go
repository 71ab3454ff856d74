package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

// directive is a line of a unit file.
type directive struct {
	section, key, value string
	where               string // file and line
	comment             string // comment above it, or above the first of its group
}

// readUnit parses a unit file or drop-in of the repository (systemd.syntax(7)). A line
// that is not a directive, a section, a comment or empty is an error.
func readUnit(t testing.TB, path string) []directive {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseUnit(path, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parseUnit(name, text string) (all []directive, err error) {
	section, comment, fresh := "", "", false // fresh: the previous line was a comment
	number := 0
	for lines := strings.Split(text, "\n"); len(lines) > 0; {
		line := lines[0]
		lines = lines[1:]
		number++
		where := fmt.Sprintf("%s:%d", name, number)
		for strings.HasSuffix(line, `\`) && len(lines) > 0 {
			line = strings.TrimSuffix(line, `\`) + strings.TrimSpace(lines[0])
			lines = lines[1:]
			number++
		}
		line = strings.TrimSpace(line)
		isComment := strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
		switch key, value, ok := strings.Cut(line, "="); {
		case line == "":
			comment = ""
		case isComment && fresh:
			comment += line[1:]
		case isComment:
			comment = line[1:]
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section, comment = line[1:len(line)-1], ""
		case !ok || section == "":
			return nil, fmt.Errorf("%s: %q is not a directive", where, line)
		default:
			all = append(all, directive{section, strings.TrimSpace(key), strings.TrimSpace(value), where, strings.TrimSpace(comment)})
		}
		fresh = isComment
	}
	return all, nil
}

// values returns the values of a directive, in order. An empty value removes the values
// before it.
func values(all []directive, section, key string) (out []string) {
	for _, d := range all {
		switch {
		case d.section != section || d.key != key:
		case d.value == "":
			out = nil
		default:
			out = append(out, d.value)
		}
	}
	return out
}

// value returns the value of a directive that must occur once.
func value(t testing.TB, all []directive, section, key string) string {
	t.Helper()
	v := values(all, section, key)
	if len(v) != 1 {
		t.Fatalf("[%s] %s= occurs %d times", section, key, len(v))
	}
	return v[0]
}

// tree returns the files below a directory of the repository.
func tree(t testing.TB, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(root, path)
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	return files
}

// unitFiles returns all units and drop-ins, including the examples.
func unitFiles(t testing.TB) []string {
	files := append(tree(t, "systemd/system"), tree(t, "systemd/examples")...)
	for _, f := range files {
		if !slices.Contains([]string{".service", ".socket", ".timer", ".conf"}, filepath.Ext(f)) {
			t.Errorf("%s is neither a unit nor a drop-in", f)
		}
	}
	return files
}

// program returns the name of the unit of a file, without suffix.
func program(file string) string {
	for part := range strings.SplitSeq(file, "/") {
		for _, suffix := range []string{".s", ".timer"} {
			if name, _, ok := strings.Cut(part, suffix); ok {
				return name
			}
		}
	}
	return ""
}

func TestParseUnit(t *testing.T) {
	all, err := parseUnit("x", "# head\n\n[Service]\n# why,\n# two lines\nA=1\nB = a b \\\n   c\n\nC=\n; other\nA=\nA=2\nA=3\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []directive{
		{"Service", "A", "1", "x:6", "why, two lines"},
		{"Service", "B", "a b c", "x:7", "why, two lines"},
		{"Service", "C", "", "x:10", ""},
		{"Service", "A", "", "x:12", "other"},
		{"Service", "A", "2", "x:13", "other"},
		{"Service", "A", "3", "x:14", "other"},
	}
	if !slices.Equal(all, want) {
		t.Errorf("got\n%q\nwant\n%q", all, want)
	}
	if got := values(all, "Service", "A"); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("an empty value does not remove the others: %q", got)
	}
	for _, bad := range []string{"A=1\n", "[Service]\nnonsense\n"} {
		if _, err := parseUnit("x", bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for file, want := range map[string]string{
		"systemd/system/nnf-dm.socket": "nnf-dm", "systemd/system/clientmountd.service.d/10-runtime.conf": "clientmountd",
		"systemd/examples/nnf-dm.socket.d/30-group.conf": "nnf-dm",
	} {
		if got := program(file); got != want {
			t.Errorf("program(%s) is %q", file, got)
		}
	}
}
