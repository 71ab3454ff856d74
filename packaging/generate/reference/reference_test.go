package reference

import (
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

const root = "../../.."

// sources are the directories whose texts a program prints, logs or reports.
var sources = map[string][]string{
	"clientmountd": {"internal/clientmount", "internal/clientmount/plan", "internal/node", "internal/safepath", "internal/kube", "internal/daemon"},
	"nnf-dm":       {"internal/datamovement", "internal/datamovement/server", "internal/unixsocket", "internal/safepath", "internal/kube", "internal/daemon"},
	"nnf-dmctl":    {"internal/cli/dmctl", "internal/datamovement/client", "internal/datamovement", "internal/datamovement/server"},
	"nnf-deploy": {"internal/cli/deploy", "internal/deploy/credentials", "internal/deploy/fleet", "internal/deploy/inventory", "internal/deploy/payload",
		"internal/deploy/product", "internal/deploy/provision", "internal/deploy/remote", "internal/deploy/target", "internal/kube"},
}

// texts returns the texts in the code and the scripts of a program.
func texts(t *testing.T, program string) string {
	t.Helper()
	list := manual.Literals(t, root, sources[program]...)
	for _, dir := range sources[program] {
		err := fs.WalkDir(os.DirFS(root), dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".sh" || strings.Contains(path, "testdata") {
				return err
			}
			data, err := os.ReadFile(filepath.Join(root, path))
			list = append(list, string(data))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(list, "\x00")
}

// fragments returns the parts of a text that are the same each time it is printed.
func fragments(text string) (parts []string) {
	for part := range strings.SplitSeq(strings.ReplaceAll(text, seam, "…"), "…") {
		if part = strings.TrimSpace(part); len(part) > 2 {
			parts = append(parts, part)
		}
	}
	return parts
}

// quoted returns the texts of programs that a cell quotes: spans of three words or more
// that are no command line and no example.
func quoted(cell string) (list []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		first, _, _ := strings.Cut(m[1], " ")
		commands := []string{"clientmountd", "nnf-dm", "nnf-dmctl", "nnf-deploy", "kubectl", "systemctl", "journalctl", "ssh", "env", "ls", "vgchange"}
		if len(strings.Fields(m[1])) > 2 && !slices.Contains(commands, first) && !strings.ContainsAny(m[1], "0123456789") {
			list = append(list, m[1])
		}
	}
	return list
}

// Each text in the tables occurs in the code of the program.
func TestTextsExist(t *testing.T) {
	check := func(program, text, code string) {
		parts := fragments(text)
		if len(parts) == 0 {
			t.Errorf("%s: nothing of %q can be found", program, text)
		}
		for _, part := range parts {
			if !strings.Contains(code, part) {
				t.Errorf("%s: no code has %q of %q", program, part, text)
			}
		}
	}
	for program, topics := range messages {
		code := texts(t, program)
		var list []message
		for _, t := range topics {
			list = append(list, t.list...)
		}
		for _, m := range list {
			if m.do == "" || len(m.texts) == 0 && m.note == "" {
				t.Errorf("%s: an incomplete row: %+v", program, m)
			}
			for _, text := range quoted(m.note + m.do) {
				check(program, text, code)
			}
			if m.foreign {
				continue
			}
			for _, text := range m.texts {
				check(program, text, code)
			}
		}
	}
	code := texts(t, "clientmountd")
	for _, e := range statusErrors {
		if e.what == "" || e.job == "" || e.do == "" || len(e.texts) == 0 {
			t.Errorf("an incomplete row: %+v", e)
		}
		for _, text := range slices.Concat(e.texts, quoted(e.what), quoted(e.do)) {
			check("status.error", text, code)
		}
	}
}

// Each text with which a step can fail has exactly one row.
func TestStepsAreExplained(t *testing.T) {
	seen := 0
	for _, s := range manual.Literals(t, root, "internal/clientmount/plan", "internal/clientmount") {
		if !strings.HasPrefix(s, "unable to ") {
			continue
		}
		seen++
		text, _, _ := strings.Cut(strings.ReplaceAll(s, "%s", "…"), ":")
		rows := 0
		for _, e := range statusErrors {
			if slices.Contains(e.texts, text) {
				rows++
			}
		}
		if rows != 1 {
			t.Errorf("%q has %d rows", s, rows)
		}
	}
	if seen < 14 {
		t.Errorf("only %d texts were found in the code", seen)
	}
}

// Each text with which the plan refuses an object (fatal) or a profile (fault) has a row that
// says what this means for the job.
func TestRefusalsAreExplained(t *testing.T) {
	impossible := []string{ // in clientmountd, which checks this before
		"spec.mounts has no entry %d", "no storage profile for spec.mounts[%d]", "unknown mode %s, expected real, kind or mock",
	}
	seen := 0
	manual.Inspect(t, root, func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		name, ok := call.Fun.(*ast.Ident)
		want := map[string]string{"fatal": ends, "fault": waits}
		if !ok || want[name.Name] == "" {
			return
		}
		lit, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			t.Errorf("%s without a literal", name.Name)
			return
		}
		text, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		explained := slices.ContainsFunc(statusErrors, func(e statusError) bool {
			return e.job == want[name.Name] && slices.ContainsFunc(e.texts, func(row string) bool {
				var parts []string
				for _, part := range fragments(row) {
					parts = append(parts, regexp.QuoteMeta(part))
				}
				return regexp.MustCompile(strings.Join(parts, ".*")).MatchString(text)
			})
		})
		if !explained && !slices.Contains(impossible, text) {
			t.Errorf("%q has no row with %q", text, want[name.Name])
		}
	}, "internal/clientmount/plan")
	if seen < 30 {
		t.Errorf("only %d texts were found in the code", seen)
	}
}

// Each reason of the API has a row with the status that version 1 sends.
func TestReasons(t *testing.T) {
	if _, err := reasonTable(); err != nil {
		t.Error(err)
	}
	for reason, want := range map[pb2.ErrorReason]string{
		pb2.ErrorReason_INVALID_FIELD: "INVALID_ARGUMENT", pb2.ErrorReason_CALLER_GONE: "CANCELLED", pb2.ErrorReason_LIMIT_EXCEEDED: "RESOURCE_EXHAUSTED",
	} {
		if got := codeName(reason); got != want {
			t.Errorf("%s has the code %s, want %s", reason, got, want)
		}
	}
}

// The commands of the daemons have texts, and no text is for a command that does not exist.
func TestCommands(t *testing.T) {
	for _, table := range []*config.Table{new(clientmount.Configuration).Table(), new(server.Configuration).Table()} {
		left := Commands(table.Program)
		for _, several := range table.Synopsis {
			for _, c := range several.Each() {
				words := strings.TrimSpace(c.Words + " " + c.Option)
				if left[words] == "" {
					t.Errorf("%s %s has no text", table.Program, words)
				}
				delete(left, words)
			}
		}
		for words := range left {
			t.Errorf("%s has no command %q", table.Program, words)
		}
	}
}

// tags returns the paths of the JSON fields of a type.
func tags(typ reflect.Type, prefix string) (list []string) {
	switch typ.Kind() {
	case reflect.Pointer:
		return tags(typ.Elem(), prefix)
	case reflect.Slice:
		return tags(typ.Elem(), prefix+"[]")
	case reflect.Struct:
	default:
		return []string{prefix}
	}
	if typ == reflect.TypeFor[time.Time]() {
		return []string{prefix}
	}
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		list = append(list, tags(typ.Field(i).Type, strings.TrimPrefix(prefix+"."+name, "."))...)
	}
	return list
}

// Each field of the status document has a row, and no row is of another field.
func TestStatusFields(t *testing.T) {
	want := slices.Sorted(slices.Values(tags(reflect.TypeFor[systemd.Status](), "")))
	var got []string
	for _, f := range statusFields("clientmountd") {
		if _, isPath := strings.CutPrefix(f.name, "paths."); !isPath {
			got = append(got, f.name)
		}
	}
	got = append(got, "paths")
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the rows are\n%q, the fields\n%q", got, want)
	}
	for program, dir := range map[string]string{"clientmountd": "internal/clientmount", "nnf-dm": "internal/datamovement/server"} {
		literals := manual.Literals(t, root, dir, "internal/systemd")
		for _, f := range statusFields(program) {
			if key, isPath := strings.CutPrefix(f.name, "paths."); isPath && !slices.Contains(literals, key) {
				t.Errorf("%s: no code has the key %s", program, key)
			}
		}
	}
}

// Each field of the JSON documents of the tools has a row, and no row is of another field.
func TestDocuments(t *testing.T) {
	for program, files := range map[string][]string{
		"nnf-dmctl":  {"internal/cli/dmctl/*.go", "internal/text/checklist/checklist.go", "internal/datamovement/client/client.go"},
		"nnf-deploy": {"internal/cli/deploy/*.go", "internal/deploy/fleet/results.go", "internal/timeline/statistics.go"},
	} {
		var fields, rows []string
		for _, pattern := range files {
			paths, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil || len(paths) == 0 {
				t.Fatal(pattern, err)
			}
			for _, path := range paths {
				if strings.HasSuffix(path, "_test.go") {
					continue
				}
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range regexp.MustCompile("`json:\"([a-z0-9_]+)").FindAllStringSubmatch(string(data), -1) {
					fields = append(fields, m[1])
				}
			}
		}
		for _, d := range documents[program] {
			for _, f := range d.fields {
				for part := range strings.SplitSeq(f.name, ".") {
					rows = append(rows, strings.TrimSuffix(part, "[]"))
				}
			}
		}
		slices.Sort(fields)
		slices.Sort(rows)
		if fields, rows = slices.Compact(fields), slices.Compact(rows); !slices.Equal(fields, rows) {
			t.Errorf("%s: the fields are\n%q, the rows\n%q", program, fields, rows)
		}
	}
	text := documentTables("nnf-dmctl")
	for _, word := range []string{
		string(client.Pending), string(client.Starting), string(client.Running), string(client.Cancelling), string(client.Completed), string(client.Unknown),
		string(client.Success), string(client.Failure), string(client.Refused), string(client.Cancelled), string(client.Deleted),
	} {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("%s is not explained", word)
		}
	}
}

// The tables of the tools are complete, and in the form that help, completion, manual page
// and reference expect.
func TestGuides(t *testing.T) {
	for program, g := range map[string]cli.Guide{dmctl.Name: dmctl.Program.Guide(), deploy.Name: deploy.Program.Guide()} {
		takes := map[string]bool{} // whether a flag takes a value, by its name
		for _, c := range g.Commands {
			if c.Short == "" || strings.ContainsAny(c.Short[len(c.Short)-1:], ".\n") {
				t.Errorf("%s: %q is not a line without a full stop", c.Name, c.Short)
			}
			for line := range strings.Lines(c.Long) {
				if len(line) > 100 {
					t.Errorf("%s: a long line: %s", c.Name, line)
				}
			}
			for _, e := range c.Examples {
				if !strings.HasPrefix(e.Lines, program+" "+c.Name) || e.Comment == "" {
					t.Errorf("%s: %+v", c.Name, e)
				}
			}
			for _, f := range append(c.Flags, g.Flags...) {
				if was, seen := takes[f.Name]; seen && was != (f.Value != "") {
					t.Errorf("--%s takes a value with one command and none with another", f.Name)
				}
				takes[f.Name] = f.Value != ""
				if f.Meaning == "" || f.Default == "[]" || f.Default == "false" {
					t.Errorf("%s: %+v", c.Name, f)
				}
			}
		}
		if len(g.Commands) == 0 || len(g.Flags) == 0 || len(g.Environment) == 0 || len(g.Exits) == 0 {
			t.Errorf("%s: a part is missing: %+v", program, g)
		}
	}
}

// The guides name only settings that exist, and explain every limit.
func TestGuidesNameSettings(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var guides strings.Builder
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		guides.Write(data)
	}
	var keys []string
	for _, table := range []*config.Table{new(clientmount.Configuration).Table(), new(server.Configuration).Table()} {
		for _, s := range table.Settings {
			keys = append(keys, s.Key)
			if strings.HasPrefix(s.Key, "limits.") && !strings.Contains(guides.String(), "`"+s.Key+"`") {
				t.Errorf("no guide explains %s", s.Key)
			}
		}
	}
	sections := "strict_credentials|(?:kubernetes|node|mount|socket|access|options|limits|daemon|log|runtime)\\.[a-z_]+"
	seen := 0
	for _, m := range regexp.MustCompile("`("+sections+")(?: = [^`]*)?`").FindAllStringSubmatch(guides.String(), -1) {
		seen++
		if !slices.Contains(keys, m[1]) {
			t.Errorf("there is no setting %s", m[1])
		}
	}
	if seen < 40 {
		t.Errorf("only %d settings were found in the guides", seen)
	}
	if !strings.Contains(guides.String(), "`"+server.KeyMetadata+"`") {
		t.Errorf("no guide explains %s", server.KeyMetadata)
	}
}

func TestInsert(t *testing.T) {
	page := "head\n<!-- a: written by make generate -->\nold\n<!-- end of a -->\ntail\n"
	got, err := Insert("p.md", page, Blocks{"a": "\nnew\n"})
	if want := strings.Replace(page, "old\n", "\nnew\n\n", 1); err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	if again, err := Insert("p.md", got, Blocks{"a": "\nnew\n"}); err != nil || again != got {
		t.Errorf("%v\n%s", err, again)
	}
	for _, tt := range []struct {
		page   string
		blocks Blocks
		want   string
	}{
		{page, Blocks{"a": "x", "b": "x"}, "p.md has no place for the b"},
		{strings.Replace(page, "<!-- end of a -->", "", 1), Blocks{"a": "x"}, "p.md has no place for the a"},
		{page + strings.ReplaceAll(page, " a", " b"), Blocks{"a": "x"}, "p.md has 2 lines"},
	} {
		if _, err := Insert("p.md", tt.page, tt.blocks); err == nil || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}
