package manual

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const repository = "../../.." // as seen from this directory

// phrases are expressions of words that no text of the repository uses, because another
// word is standard, or because a sentence with them is hard to understand. A space matches
// any white space, including a line break. A lower-case letter at the start of a word at the
// start of the expression also matches upper case.
var phrases = []struct {
	expr    string
	instead string // what to write
	example string // a text that the expression finds
}{
	{`\bmakes? objects true`, "reconciles", "makes objects true"},
	{`\bfolders?\b`, "directory", "the folder exists"},
	{`\bbegun\b`, "started", "no node is begun"},
	{`\bbegins?\b|\bbeginning (to|with)\b`, "start", "Begin here"},
	{`\bbegan\b`, "started", "since it began"},
	{`\bgo(es)? on\b|\bwent on\b`, "continues, keeps running, retries (say which)", "the mount goes\non"},
	{`\banew\b`, "again", "reads it anew"},
	{`\bonce more\b`, "again", "it is read once more"},
	{`\b(some|any)body\b|\bnobody(?:'s)? (?:can|could|did|does|else|elsewhere|ever|has|had|is|may|must|needs?|new|of|reads?|should|to|uses?|wants?|was|who|will|would|writes?)\b`, "the user, another process, the caller, no client", "nobody else"},
	{`\b(is|are|was|were|be|been) told\b`, "is reported, reports, prints", "the user is told"},
	{`\b(is|are|was|were) said\b`, "is reported, reports, prints", "what is said"},
	{`\bsay(s|ing)? so\b`, "reports it, prints a message", "and says so"},
	{`\balso (when|where)\b`, "even if, including when", "also when it fails"},
	{`\bwhom\b`, "name the process or the user (by kernel peer credentials, SO_PEERCRED)", "whom the kernel names"},
	{`\b(for|of|to|by|from|with) who\b`, "when you, the caller, users that", "For who comes from the older daemon"},
	{`\bWho (asks|calls|comes|connects|gets|has|is|knows|wants)\b[^?.|]*[.|]`, "the caller, a client that, if you", "Who wants it finds it there."},
	{`\bstands? for\b`, "stands in for, replaces, means", "a name that stands for two"},
	{`\blook(s|ed|ing)? after\b`, "manages", "looks after the mounts"},
	{`\bleads? nowhere\b`, "stale", "the device that leads nowhere"},
	{`\b(token|credential|certificate)s? that ends?\b`, "expiring token", "a token that ends"},
	{`\bout of its word\b`, "escape its argument", "break out of its word"},
	{`\bexit codes that stay\b`, "stable exit codes", "exit codes that stay"},
	{`\bwhat is not (the caller's|theirs|ours|its own|one's own)\b`, "objects of other users", "what is not the caller's"},
	{`\b(named|listed|told) together with\b`, "is listed with", "named together with the reason"},
	{`\bis a must\b`, "is required", "that is a must"},
	{`\bwants? it nevertheless\b`, "if you still want it", "who wants it nevertheless"},
	{`\b(is|are) gone to\b`, "is contacted", "the first node is gone to"},
	{`\blies? (afterwards|beside|ready|there)\b|\blay (beside|in|there)\b`, "is in, has", "the file lies there"},
	{`\bit is waited\b`, "say who waits: nnf-deploy waits until", "it is waited until"},
	{`\beither all is\b`, "either both are … or neither", "either all is written or nothing"},
	{`\bcomes? in any ?more\b|\bnobody new\b`, "new connections are refused", "nobody new comes in"},
	{`\b(no \w+|nothing|none)( \w+)* any more\b`, "no longer, no further", "no node is started any more"},
	{`\b(is|are) [\w ]+ at least\b(?:[.;,:)|]|\s*$)`, "must be at least", "it is a second at least"},
	{`\bwhose (it|they|that|this) (is|are|was|were)\b`, "which user (account, process) it belongs to", "the token whose it is"},
	{`\bshall\b`, "must, should, or the imperative", "where shall the files go?"},
	{`(?:^|[^e\s]) is no (user|file|directory|path|number|duration|address|name|mount)\b|(?:^|[^e\s]) (is|are) none\b|\bis no(ne)? that\b`, "is not a valid …, is not a …", "root is no user"},
	{`\blost sight\b`, "the watch failed; retrying", "lost sight of the objects"},
	{`\btakes? no (clients?|connections?)\b`, "does not accept connections", "it takes no clients"},
	{`\bneighbou?rs?\b`, "peer", "its neighbour"},
	{`\brooms?\b`, "space, capacity", "no room left"},
	{`\bfloors?\b`, "layer", "the floor below"},
	{`\bhouses?\b`, "repository", "nothing in this house"},
	{`\bscenes?\b|\blaborator(y|ies)\b`, "test, demo, test environment", "the next scene"},
	{`\b(calm|graves?|pulses?)\b`, "idle, tombstone, self-check", "until it is calm"},
	{`\bstrangers?\b`, "other user, unknown process, unexpected object", "a stranger's file"},
	{`\bin one go\b`, "in one request, at once", "written in one go"},
	{`\bfor good\b`, "permanently", "it stops for good"},
	{`\bfor nothing\b`, "in vain, or say what is wasted", "waits for nothing"},
	{`\bagain and again\b`, "repeatedly, every N s", "it tries again and again"},
	{`\bwithout a question\b`, "without prompting", "deleted without a question"},
	{`\bby hand\b`, "manually, or name the command", "delete it by hand"},
	{`\bas (it|they) (was|were)\b`, "unchanged", "the file stays as it was"},
	{`\bthe time is (up|over)\b`, "the timeout expires", "when the time is up"},
	{`\btells? (of|how|until|whose|that)\b`, "reports, shows, names", "a record tells of it"},
	{`\bhow far\b`, "progress, which step", "it shows how far it is"},
	{`\bthereby\b`, "so, which", "and thereby unmounts"},
	{`\bsuch an? `, "name it: a file like this", "such a file is refused"},
	{`\bof (one's|his|her) own\b|\bof own\b`, "its own X, a separate X", "texts of own"},
	{`\bby itself\b`, "automatically, alone, without help", "it restarts by itself"},
	{`\bdo(es)? not end(?:[.;,:)"|]| (?:and|before|until|when|while|within)\b|\s*$)`, "does not exit, does not finish", "the program does not end"},
	{`\bthe same goes for\b`, "this also applies to", "The same goes for files"},
	{`\bin (that|this|the same) moment\b`, "at that moment", "who connects in that moment"},
	{`\bwhich one is it\b`, "state the rule: A and B are mutually exclusive", "which one is it to be?"},
	{`\bits business\b|\bnone of (its|our|your) business\b`, "say what it does not do", "that is not its business"},
	{`\bknows? nothing (of|about)\b`, "has no, does not use", "knows nothing of Kubernetes"},
}

// allowed are places that keep a phrase. Each must match, so that none outlives its text.
var allowed = []struct{ file, text, reason string }{
	{"internal/deploy/target/report.go", "does not end", "a value in the JSON output of nnf-deploy status"},
}

// skipped are files that are not ours, are generated from others, or hold data.
var skipped = regexp.MustCompile(`^(\.git|bin|dist|rpms|vendor)(/|$)|^LICENSE$|\.(sum|mod|pb\.go|json)$|/testdata/fuzz/|^internal/devcluster/manifests/crds/|^internal/e2e/manual/phrases_test\.go$`)

// compile returns the expressions with their white space and first letters generalised.
func compile(expr string) *regexp.Regexp {
	expr = regexp.MustCompile(`(^|\||\()((?:\\b)?)([a-z])([a-z' ]|\()`).ReplaceAllStringFunc(expr, func(s string) string {
		i := strings.LastIndexFunc(s[:len(s)-1], func(r rune) bool { return 'a' <= r && r <= 'z' })
		return s[:i] + "[" + strings.ToUpper(s[i:i+1]) + s[i:i+1] + "]" + s[i+1:]
	})
	return regexp.MustCompile("(?m)" + strings.ReplaceAll(expr, " ", `\s+`))
}

func expressions() (list []*regexp.Regexp) {
	for _, p := range phrases {
		list = append(list, compile(p.expr))
	}
	return list
}

// No text uses one of the phrases: documents outside code, manual pages, the catalogue, comments
// and strings of Go files, scripts, units and configuration.
func TestPhrases(t *testing.T) {
	find := expressions()
	used := make([]bool, len(allowed))
	files := 0
	texts(t, func(path, text string) {
		files++
		for i, p := range phrases {
		match:
			for _, at := range find[i].FindAllStringIndex(text, -1) {
				from := strings.LastIndexByte(text[:at[0]], '\n') + 1
				to := len(text)
				if i := strings.IndexByte(text[at[1]:], '\n'); i >= 0 {
					to = at[1] + i
				}
				for i, a := range allowed {
					if ok, _ := filepath.Match(a.file, path); ok && strings.Contains(oneLine(text[from:to]), a.text) {
						used[i] = true
						continue match
					}
				}
				t.Errorf("%s:%d: %q: write: %s", path, 1+strings.Count(text[:at[0]], "\n"), oneLine(text[at[0]:at[1]]), p.instead)
			}
		}
	})
	if files < 500 {
		t.Errorf("only %d files read", files)
	}
	for i, a := range allowed {
		if !used[i] {
			t.Errorf("the exception %q in %s matches nothing: remove it", a.text, a.file)
		}
	}
}

// No function, type, package-level name or field has a phrase in its name.
func TestNames(t *testing.T) {
	find := expressions()
	names := 0
	walk(t, func(path string, data []byte) {
		if filepath.Ext(path) != ".go" {
			return
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, data, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range declared(file) {
			names++
			for i, p := range phrases {
				if find[i].MatchString(inWords(id.Name)) {
					t.Errorf("%s: the name %s: write: %s", set.Position(id.Pos()), id.Name, p.instead)
				}
			}
		}
	})
	if names < 1000 {
		t.Errorf("only %d names were read", names)
	}
}

// declared returns the names that a file declares outside of functions.
func declared(file *ast.File) (names []*ast.Ident) {
	fields := func(list *ast.FieldList) {
		for _, f := range list.List {
			names = append(names, f.Names...)
		}
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			names = append(names, f.Name)
			continue
		}
		for _, s := range d.(*ast.GenDecl).Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				names = append(names, s.Names...)
			case *ast.TypeSpec:
				names = append(names, s.Name)
				switch typ := s.Type.(type) {
				case *ast.StructType:
					fields(typ.Fields)
				case *ast.InterfaceType:
					fields(typ.Methods)
				}
			}
		}
	}
	return names
}

// inWords separates the words of a name: TestNobodyElse becomes "test nobody else".
func inWords(name string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z0-9])_?([A-Z])`).ReplaceAllString(name, "$1 $2"))
}

func TestNamesInWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "", "package x\ntype folder struct{ stranger int }\ntype begin interface{ goOn() }\nvar neighbour int\nfunc (folder) TestNobodyElse() { whom := 1; _ = whom }", 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range declared(file) {
		got = append(got, inWords(id.Name))
	}
	if want := []string{"folder", "stranger", "begin", "go on", "neighbour", "test nobody else"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Each expression finds its example in each kind of file, also with other white space and at
// the start of a sentence.
func TestPhrasesAreFound(t *testing.T) {
	kinds := map[string]string{
		"x.md":       "A page.\n\n%s\n",
		"x.go":       "package x\n\n// A comment\n// %s\nvar x int\n",
		"x_test.go":  "package x\n\nvar x = \"then \" +\n\t%q\n",
		"x.txtar":    "# %s\n",
		"x.sh":       "#!/bin/sh\n# %s\n",
		"x.service":  "[Unit]\n# %s\n",
		"x.toml":     "# %s\nversion = 1\n",
		"x.proto":    "// %s\nmessage X {}\n",
		"x.8":        ".PP\n%s\n",
		"x.catalog":  "-- 0123\nSubject: x\n\n%s\n",
		"Makefile":   "# %s\nall:\n",
		"x.yaml":     "# %s\na: b\n",
		"completion": "x\t%s\n",
	}
	for _, p := range phrases {
		re := compile(p.expr)
		for name, format := range kinds {
			for _, example := range []string{p.example, strings.ToUpper(p.example[:1]) + p.example[1:]} {
				source := fmt.Sprintf(format, strings.ReplaceAll(example, "\n", " "))
				if strings.HasSuffix(name, ".md") {
					source = fmt.Sprintf(format, strings.ReplaceAll(example, " ", "\n"))
				}
				if text := extract(name, []byte(source)); !re.MatchString(text) {
					t.Errorf("%s: %s does not find %q in %q", p.expr, name, example, text)
				}
			}
		}
		if p.instead == "" || re.MatchString(p.instead) {
			t.Errorf("%s: a replacement without the phrase is missing", p.expr)
		}
	}
}

// The extraction keeps line numbers and leaves code out.
func TestExtract(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"x.md", "One `begin` two\n\n```sh\nbegin\n```\nthree [a](begin.md)\n", "One  two\n\n\n\n\nthree [a]\n"},
		{"x.go", "package begin\n\n// One\n/* two\n three */\nvar begin = `four\nfive` + \" six\\tseven\" // eight\nvar c = 'b'\n",
			"\n\nOne\ntwo\nthree\nfour\nfive six\tseven eight |\n\n"},
		{"x.sh", "echo 'one' # two\n", "echo 'one' # two\n"},
		{"x.8", "one\\-two \\fBthree\\fR\n", "one-two three\n"},
	} {
		if got := extract(c.name, []byte(c.source)); tidy(got) != tidy(c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, tidy(got), tidy(c.want))
		}
	}
}

// tidy removes spaces at both ends of lines and repeated ones.
func tidy(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = oneLine(l)
	}
	return strings.Join(lines, "\n")
}

// texts calls f with the prose of each text file of the repository.
func texts(t *testing.T, f func(path, text string)) {
	t.Helper()
	walk(t, func(path string, data []byte) { f(path, extract(path, data)) })
}

// walk calls f with each text file of the repository, except those that are skipped.
func walk(t *testing.T, f func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(repository, path)
		if err != nil {
			return err
		}
		if skipped.MatchString(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil || bytes.IndexByte(data, 0) >= 0 {
			return err
		}
		f(name, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	linkTarget = regexp.MustCompile(`\]\([^)\s]*\)`)
	roff       = strings.NewReplacer(`\-`, "-", `\&`, "", `\fB`, "", `\fI`, "", `\fR`, "", `\fP`, "", `\(aq`, "'", `\(dq`, `"`, `\e`, `\`)
)

// extract returns what a person reads in a file, with as many lines as the file has.
func extract(name string, data []byte) string {
	switch filepath.Ext(name) {
	case ".go":
		return goTexts(data)
	case ".md":
		return markdown(string(data))
	case ".1", ".5", ".8":
		return roff.Replace(string(data))
	}
	var b strings.Builder
	comment := regexp.MustCompile(`^\s*(#|//) ?`)
	for line := range strings.Lines(string(data)) {
		b.WriteString(comment.ReplaceAllString(line, ""))
	}
	return b.String()
}

// markdown returns a document without fenced and inline code and without link targets.
func markdown(text string) string {
	return linkTarget.ReplaceAllString(withoutCode(text), "]")
}

// goTexts returns the comments and string literals of a Go file, each at its line. A bar
// separates strings, unless they are added to each other.
func goTexts(data []byte) string {
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(data))
	var s scanner.Scanner
	s.Init(file, data, nil, scanner.ScanComments)
	var b strings.Builder
	line, pending := 1, false
	write := func(at int, text string) {
		for ; line < at; line++ {
			b.WriteByte('\n')
		}
		b.WriteString(text)
		line += strings.Count(text, "\n")
	}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			break
		}
		at := file.Line(pos)
		if pending && tok != token.ADD && tok != token.STRING && tok != token.COMMENT {
			write(line, "| ")
			pending = false
		}
		switch tok {
		case token.COMMENT:
			lines := strings.Split(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(lit, "//"), "/*"), "*/"), "\n")
			write(at, strings.Join(lines, "\n")+" ")
		case token.STRING:
			text := lit[1 : len(lit)-1]
			if lit[0] == '"' {
				if u, err := strconv.Unquote(lit); err == nil {
					text = strings.ReplaceAll(u, "\n", " ")
				}
			}
			write(at, text)
			pending = true
		}
	}
	total := bytes.Count(data, []byte("\n"))
	write(total+1, "")
	return b.String()
}
