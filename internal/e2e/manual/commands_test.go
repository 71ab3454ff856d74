package manual

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

// guides calls f with each page whose commands readers run.
func guides(t *testing.T, f func(path, text string)) {
	t.Helper()
	documents(t, func(path, text string) {
		if path == "README.md" || path == "HACKING.md" || strings.HasPrefix(path, "docs/") {
			f(path, text)
		}
	})
}

var (
	testedBy = regexp.MustCompile(`^<!-- tested by (?:(\.ci/run)|(\S+) (Test\w+)) -->$`)
	notRun   = regexp.MustCompile(`^<!-- not run: \S.* -->$`)
)

// Each block of commands has a comment before it that names what runs it, .ci/run or a
// test, or says why nothing does. .ci/run has the commands of its blocks. A test reads the
// page, and takes the block from it by the comment.
func TestCommandsAreRun(t *testing.T) {
	n := 0
	guides(t, func(path, text string) {
		for _, b := range Blocks(text, "sh") {
			n++
			m := testedBy.FindStringSubmatch(b.Comment)
			switch {
			case notRun.MatchString(b.Comment):
			case m == nil:
				t.Errorf("%s:%d: the line before the block must be <!-- tested by PATH TestName --> or <!-- not run: REASON -->", path, b.Line)
			case m[1] != "":
				script := read(t, ".ci/run")
				for line := range strings.Lines(b.Text) {
					line = strings.TrimSpace(line)
					if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + `( |$)`).MatchString(script) {
						t.Errorf("%s:%d: .ci/run does not run %s", path, b.Line, line)
					}
				}
			default:
				if text, ok := testFile(t, m[2], m[3]); !ok {
					t.Errorf("%s:%d: %s has no %s", path, b.Line, m[2], m[3])
				} else if !strings.Contains(text, filepath.Base(path)) || !strings.Contains(text, `"`+m[2]+" "+m[3]+`"`) {
					t.Errorf("%s:%d: %s in %s does not take the block from the page with manual.Commands", path, b.Line, m[3], m[2])
				}
			}
		}
	})
	if n < 40 {
		t.Errorf("only %d blocks of commands were found", n)
	}
}

// Each of these comments precedes a block of commands.
func TestCommentsPrecedeCommands(t *testing.T) {
	guides(t, func(path, text string) {
		comments := len(regexp.MustCompile(`(?m)^\s*<!-- (tested by|not run)`).FindAllString(text, -1))
		for _, b := range Blocks(text, "sh") {
			if testedBy.MatchString(b.Comment) || notRun.MatchString(b.Comment) {
				comments--
			}
		}
		if comments != 0 {
			t.Errorf("%s: %d comments are not before a block of commands", path, comments)
		}
	})
}

// Each block of commands is valid for bash.
func TestCommandsAreShell(t *testing.T) {
	guides(t, func(path, text string) {
		for _, b := range Blocks(text, "sh") {
			cmd := exec.Command("bash", "-n")
			cmd.Stdin = strings.NewReader(b.Text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s:%d: %v: %s", path, b.Line, err, out)
			}
		}
	})
}

// If a test names another test by directory and function, that test exists. Without this
// test, a renamed test would be noticed only when all suites run.
func TestNamedTestsExist(t *testing.T) {
	named := regexp.MustCompile("[\"`](internal/[a-z0-9/]+) (Test\\w+)[\"`]")
	found := 0
	err := filepath.WalkDir(filepath.Join(repository, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, ok := testFile(t, m[1], m[2]); !ok {
				t.Errorf("%s names %s in %s, which does not exist", path, m[2], m[1])
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d names of tests were found, %v", found, err)
	}
}

// testFile returns the text of the file in a directory of the repository that has a test.
func testFile(t *testing.T, dir, name string) (text string, ok bool) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(repository, dir, "*_test.go"))
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "\nfunc "+name+"(") {
			return string(source), true
		}
	}
	return "", false
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// grammar is what a program accepts: sub-commands, and whether a flag takes a value.
type grammar struct {
	commands map[string]map[string]bool // the flags of each
	flags    map[string]bool            // of all commands
}

func grammars() map[string]grammar {
	out := map[string]grammar{}
	add := func(to map[string]bool, flags []cli.Flag) map[string]bool {
		for _, f := range flags {
			to["--"+f.Name] = f.Value != ""
			if f.Letter != "" {
				to["-"+f.Letter] = f.Value != ""
			}
		}
		return to
	}
	for name, g := range map[string]cli.Guide{dmctl.Name: dmctl.Program.Guide(), deploy.Name: deploy.Program.Guide()} {
		tool := grammar{map[string]map[string]bool{"help": {}}, add(map[string]bool{"--help": false, "--version": false}, g.Flags)}
		for _, c := range g.Commands {
			tool.commands[c.Name] = add(map[string]bool{}, c.Flags)
		}
		out[name] = tool
	}
	for _, table := range []*config.Table{clientmountd.Program().Table(), new(server.Configuration).Table()} {
		daemon := grammar{map[string]map[string]bool{}, map[string]bool{"--help": false, "--config": true, "-o": true}}
		for _, c := range table.Synopsis {
			for word := range strings.SplitSeq(c.Words, "|") {
				first, _, _ := strings.Cut(word, " ")
				daemon.commands[first] = map[string]bool{}
			}
		}
		for _, s := range table.Settings {
			if s.Flag != "" {
				daemon.flags["--"+s.Flag] = s.Kind != config.Bool
			}
		}
		for _, l := range table.Legacy {
			daemon.flags["--"+l.Flag] = true
		}
		if table.Program == clientmountd.Name {
			tools := clientmountd.Tools.Guide()
			for _, c := range tools.Commands {
				if daemon.commands[c.Name] != nil {
					daemon.commands[c.Name] = add(add(map[string]bool{}, c.Flags), tools.Flags)
				}
			}
		}
		out[table.Program] = daemon
	}
	return out
}

// wrong returns the first argument that a program does not accept. Words in capitals are
// placeholders; the arguments of sub-commands are not checked.
func (g grammar) wrong(args []string) string {
	var own map[string]bool // flags of the sub-command
	for i := 0; i < len(args); i++ {
		arg := strings.Trim(args[i], `"'[]…`)
		switch {
		case arg == "" || strings.HasPrefix(arg, "$") || strings.HasPrefix(args[i], "[") || arg == strings.ToUpper(arg) && !strings.HasPrefix(arg, "-"):
		case strings.HasPrefix(arg, "-") && strings.Trim(arg, "-") != "":
			name, _, joined := strings.Cut(arg, "=")
			value, known := g.flags[name]
			if !known {
				value, known = own[name]
			}
			if !known {
				return args[i]
			}
			if value && !joined {
				i++
			}
		case own == nil:
			own = g.commands[arg]
			if own == nil && i+1 < len(args) && g.commands[arg+" "+args[i+1]] != nil { // two words
				i++
				own = g.commands[arg+" "+args[i]]
			}
			if own == nil {
				return args[i]
			}
		}
	}
	return ""
}

// Each command line of our programs in a document, in a block or in the text, has a
// sub-command and flags that the program accepts. make has the targets.
func TestCommandLines(t *testing.T) {
	programs := grammars()
	targets := regexp.MustCompile(`(?m)^([a-z0-9%-]+(?: [a-z0-9%-]+)*):`)
	known := map[string]bool{}
	for _, m := range targets.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		for name := range strings.FieldsSeq(m[1]) {
			known[name] = true
		}
	}
	n := 0
	documents(t, func(path, text string) {
		if path == "CHANGELOG.md" {
			return // also has what was removed
		}
		for _, line := range commandLines(text) {
			name, rest, _ := strings.Cut(line, " ")
			args := strings.Fields(rest)
			if name == "make" {
				for _, a := range args {
					if a = strings.TrimRight(a, ".,"); regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(a) && !known[a] && !strings.HasPrefix(a, "suite-") {
						t.Errorf("%s: %s: make has no target %s", path, line, a)
					}
				}
				continue
			}
			n++
			if arg := programs[name].wrong(args); arg != "" && !slices.Contains(noCommandLines, line) {
				t.Errorf("%s: %s: %s does not accept %s", path, line, name, arg)
			}
		}
	})
	if n < 100 {
		t.Errorf("only %d command lines were found", n)
	}
}

// noCommandLines look like command lines: a word that is refused, the name of a JSON document.
var noCommandLines = []string{"clientmountd anything-else", "nnf-deploy results"}

// commandLines returns the calls of our programs and of make in a document.
func commandLines(text string) (out []string) {
	call := regexp.MustCompile(`(?:^|[|;&(] *)((?:clientmountd|nnf-dm|nnf-dmctl|nnf-deploy|make) [^|;&<>()#]+)`)
	add := func(code string) {
		for line := range strings.Lines(strings.ReplaceAll(code, "\\\n", " ")) {
			for _, m := range call.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
				out = append(out, strings.TrimSpace(m[1]))
			}
		}
	}
	for _, b := range Blocks(text, "sh") {
		add(b.Text)
	}
	for _, b := range Blocks(text, "console") {
		for line := range strings.Lines(b.Text) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				add(command)
			}
		}
	}
	for _, m := range inlineCode.FindAllString(withoutFences(text), -1) {
		add(strings.Trim(m, "`"))
	}
	return out
}

func TestWrongCommandLines(t *testing.T) {
	programs := grammars()
	for line, want := range map[string]string{
		"nnf-dmctl copy --wait --workflow x a b": "", "nnf-dmctl --workflow job7 cancel --wait ID": "", "nnf-dmctl COMMAND --help": "", "clientmountd --config=x": "",
		"clientmountd config check": "", "nnf-dm status -o json": "", "nnf-deploy install --rpm x --dry-run": "",
		"nnf-dmctl cpy a b": "cpy", "nnf-dmctl copy --rpm a b": "--rpm", "nnf-deploy --rpm x install": "--rpm", "clientmountd dump": "dump", "nnf-dm --nothing": "--nothing",
	} {
		name, args, _ := strings.Cut(line, " ")
		if got := programs[name].wrong(strings.Fields(args)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
