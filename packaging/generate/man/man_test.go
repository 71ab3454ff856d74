package man

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	deploycommands "github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

func pages(t *testing.T) map[string]string {
	t.Helper()
	all, err := Pages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var names = []string{"clientmountd.8", "clientmountd.toml.5", "nnf-dm.8", "nnf-dm.toml.5", "nnf-dmctl.1", "nnf-deploy.8"}

// plain returns a page without fonts and escapes, for searches.
func plain(page string) string {
	page = regexp.MustCompile(`\\f[BIR]`).ReplaceAllString(page, "")
	return strings.Join(strings.Fields(strings.NewReplacer(`\-`, "-", `\(aq`, "'", `\(dq`, `"`, `\e`, `\`, `\&`, "").Replace(page)), " ")
}

// Every page has all sections, in the order of man-pages(7).
func TestSections(t *testing.T) {
	want := []string{"NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "FILES", "ENVIRONMENT", "SIGNALS", "EXIT STATUS", "EXAMPLES", "JOURNAL", "SEE ALSO"}
	all := pages(t)
	if len(all) != len(names) {
		t.Errorf("%d pages", len(all))
	}
	for _, name := range names {
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^\.SH "?([A-Z ]+)"?\n`).FindAllStringSubmatch(all[name], -1) {
			got = append(got, m[1])
		}
		mine := want
		if strings.HasSuffix(name, ".5") {
			mine = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "COMMANDS" })
		}
		if !slices.Equal(got, mine) {
			t.Errorf("%s has %q, want %q", name, got, mine)
		}
		for i, line := range strings.Split(all[name], "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r > '~' || r < ' ' }) || len(line) > 120 || strings.TrimRight(line, " ") != line {
				t.Errorf("%s:%d: %q", name, i+1, line)
			}
			if strings.Contains(line, "@") {
				t.Errorf("%s:%d: an unresolved field: %q", name, i+1, line)
			}
		}
		if strings.Contains(all[name], ".SH \"SEE ALSO\"\n.") {
			t.Errorf("%s: SEE ALSO is empty", name)
		}
	}
}

// The pages contain everything in the tables: flags and names of the environment in
// section 8, keys in section 5.
func TestTablesAreComplete(t *testing.T) {
	all := pages(t)
	for _, d := range []*daemon{clientMount(), nnfdm()} {
		program, file := plain(all[d.name()+".8"]), plain(all[d.name()+".toml.5"])
		find := func(page, where, what string) {
			if !strings.Contains(page, what) {
				t.Errorf("%s has no %q", where, what)
			}
		}
		for i := range d.table.Settings {
			s := &d.table.Settings[i]
			_, key, dotted := strings.Cut(s.Key, ".")
			if !dotted {
				key = s.Key
			}
			find(file, d.name()+".toml.5", ".TP "+key+" = "+s.Kind.Noun()+" "+s.Help)
			if s.Accepted() != "" {
				find(file, d.name()+".toml.5", "Accepted: "+s.Accepted()+".")
			}
			if s.Flag != "" {
				find(program, d.name()+".8", strings.TrimSpace(".TP --"+s.Flag+" "+s.Argument())+" "+s.Help)
			}
			for _, e := range s.Env {
				find(program, d.name()+".8", ".TP "+e.Name+" Sets ")
			}
		}
		for _, c := range d.table.Synopsis {
			usage := c.Usage(d.name())
			if !strings.Contains(usage, "|") {
				find(program, d.name()+".8", ".TP "+usage+" ")
			}
			if _, listed, _ := strings.Cut(program, ".SH SYNOPSIS "); !strings.HasPrefix(listed, usage+" .br ") && !strings.Contains(listed, " .br "+usage+" ") {
				t.Errorf("%s is not in the synopsis", usage)
			}
		}
	}
	for name, guide := range map[string]cli.Guide{"nnf-dmctl.1": dmctl.Program.Guide(), "nnf-deploy.8": deploycommands.Program.Guide()} {
		page := plain(all[name])
		for _, c := range guide.Commands {
			if !strings.Contains(page, ".SS "+c.Name) && !strings.Contains(page, `.SS "`+c.Name+" ") {
				t.Errorf("%s: no command %s", name, c.Name)
			}
			for _, f := range c.Flags {
				if !strings.Contains(page, strings.TrimSpace(".TP --"+f.Name+" "+f.Value)+" ") {
					t.Errorf("%s: no flag %s", name, f.Name)
				}
			}
			for _, e := range c.Examples {
				if !strings.Contains(page, strings.Join(strings.Fields(e.Lines), " ")) {
					t.Errorf("%s: no example %s", name, e.Lines)
				}
			}
		}
	}
}

// Texts from the tables are used verbatim, so they must not contain markup.
func TestTablesHaveNoMarkup(t *testing.T) {
	for _, table := range []*config.Table{clientMount().table, nnfdm().table} {
		for _, s := range table.Settings {
			if strings.ContainsAny(s.Help+s.Default+s.Argument(), "`<>") {
				t.Errorf("%s: %s", s.Key, s.Help)
			}
		}
		for _, s := range table.Sections {
			if strings.ContainsAny(s.Help, "`<>") {
				t.Errorf("%s: %s", s.Name, s.Help)
			}
		}
	}
}

// Every setting that the prose names exists.
func TestProseNamesSettings(t *testing.T) {
	seen := 0
	for _, d := range []*daemon{clientMount(), nnfdm()} {
		prose := strings.Join(d.description, " ")
		for _, list := range [][]item{d.files, d.signals, d.environment} {
			for _, i := range list {
				prose += " " + i.term + " " + i.text
			}
		}
		sections := []string{}
		for _, s := range d.table.Sections {
			if s.Name != "" {
				sections = append(sections, s.Name)
			}
		}
		for _, m := range regexp.MustCompile("`((?:"+strings.Join(sections, "|")+")\\.[a-z_]+)[` ]").FindAllStringSubmatch(prose, -1) {
			seen++
			if d.table.Lookup(m[1]) == nil {
				t.Errorf("%s has no setting %s", d.name(), m[1])
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d settings were found in the prose", seen)
	}
}

// lints are the tools that check manual pages, with the arguments for it.
var lints = []struct {
	tool, pkg string
	args      []string
}{
	{"man", "man-db", []string{"--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z"}},
	{"mandoc", "mandoc", []string{"-T", "lint", "-W", "style,stop"}},
}

func TestLint(t *testing.T) {
	dir := t.TempDir()
	for name, text := range pages(t) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, lint := range lints {
		t.Run(lint.tool, func(t *testing.T) {
			if _, err := exec.LookPath(lint.tool); err != nil {
				require.Missing(t, err.Error()+"; install the package "+lint.pkg)
			}
			for _, name := range names {
				if said := complaints(t, lint.tool, append(lint.args, filepath.Join(dir, name))...); said != "" {
					t.Errorf("%s:\n%s", name, said)
				}
			}
			// The tool must report a malformed page, or this test proves nothing.
			wrong := filepath.Join(dir, "wrong.1")
			if err := os.WriteFile(wrong, []byte(".TH WRONG 1 2026-01-01\n.SH NAME\nwrong \\- x\n.NO SUCH REQUEST\n\\fXy\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if complaints(t, lint.tool, append(lint.args, wrong)...) == "" {
				t.Errorf("%s does not report a malformed page", lint.tool)
			}
		})
	}
}

// complaints returns what a tool reports about a page: mandoc on standard output, man
// on standard error, where standard output is the page.
func complaints(t *testing.T, tool string, args ...string) string {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANPAGER=cat", "MANOPT=")
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch {
	case tool == "mandoc":
		return out.String() + errs.String()
	case err != nil || out.Len() == 0:
		t.Fatalf("%s %v: %v\n%s", tool, args, err, errs.String())
	}
	return errs.String()
}
