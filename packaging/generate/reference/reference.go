// Package reference writes the tables of docs/reference: settings, commands, exit codes,
// JSON documents, metrics, error texts, and the records of the journal with their fields. They
// come from the tables of the programs. What these do not contain is here: the error
// texts with their explanations, and the texts about the commands and exit codes of the
// daemons, which the manual pages use as well.
//
// It must not be linked into a program, which does not need the texts.
package reference

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
)

// Blocks are the generated parts of one page, by name.
type Blocks map[string]string

// Pages returns the generated parts of each page, by the path of the page.
func Pages() (map[string]Blocks, error) {
	pages := map[string]Blocks{}
	for _, table := range []*config.Table{clientmountd.Program().Table(), new(server.Configuration).Table()} {
		name := table.Program
		kinds, err := catalog.Of(name)
		if err != nil {
			return nil, err
		}
		pages[path(name)] = Blocks{
			"settings": settings(table),
			"commands": daemonCommands(table),
			"exits":    daemonExits(name),
			"status":   fieldTable(statusFields(name)),
			"messages": messageTables(messages[name]),
			"records":  recordTable(kinds),
			"fields":   recordFields(name),
		}
	}
	mountd := pages[path(clientmountd.Name)]
	tools := DaemonTools(clientmountd.Name)
	mountd["errors"] = statusErrorTable()
	mountd["metrics"] = metricTable()
	mountd["tools"] = toolCommands(*tools)
	mountd["flags"] = flagTable(tools.Flags)
	mountd["tool exits"] = toolExits(*tools)
	mountd["json"] = documentTables(clientmountd.Name)
	reasons, err := reasonTable()
	if err != nil {
		return nil, err
	}
	pages[path("nnf-dm")]["errors"] = reasons
	for name, guide := range map[string]cli.Guide{dmctl.Name: dmctl.Program.Guide(), deploy.Name: deploy.Program.Guide()} {
		pages[path(name)] = Blocks{
			"commands":    toolCommands(guide),
			"flags":       flagTable(guide.Flags),
			"environment": environment(guide),
			"exits":       toolExits(guide),
			"json":        documentTables(name),
			"messages":    messageTables(messages[name]),
		}
	}
	return pages, nil
}

func path(program string) string { return "docs/reference/" + program + ".md" }

// Insert returns the text of a page with its blocks. Each block is between two lines,
// which stay. A block without its lines, and lines without a block, are errors.
func Insert(path, text string, blocks Blocks) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		begin, end := marks(name)
		head, rest, ok1 := strings.Cut(text, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			return "", fmt.Errorf("%s has no place for the %s: two lines, %q and %q", path, name, begin, end)
		}
		text = head + begin + "\n" + strings.Trim(blocks[name], "\n") + "\n\n" + end + tail
	}
	if n := strings.Count(text, markEnd); n != len(blocks) {
		return "", fmt.Errorf("%s has %d lines %q for %d generated parts", path, n, markEnd, len(blocks))
	}
	return text, nil
}

const markEnd = ": written by make generate -->"

func marks(name string) (begin, end string) {
	return "<!-- " + name + markEnd + "\n", "<!-- end of " + name + " -->\n"
}

// seam is where a text of a program is put together from parts. No table shows it.
const seam = "¦"

// codes marks several texts as literal. In texts of programs, … replaces the parts that
// differ each time.
func codes(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, code(strings.ReplaceAll(s, seam, "")))
	}
	return strings.Join(out, ", ")
}

// Sentence returns a text of a table as a sentence.
func Sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// message explains a text that a program prints or logs, or a symptom.
type message struct {
	texts   []string // as the program prints them, see codes
	foreign bool     // the texts come from another program
	note    string   // follows the texts; without texts, a symptom
	do      string   // what to do
}

// topic has the messages about one thing.
type topic struct {
	title string // "" if there is only one
	list  []message
}

func messageTables(topics []topic) string {
	var b strings.Builder
	for _, t := range topics {
		head := "message"
		var rows [][]string
		for _, m := range t.list {
			if len(m.texts) == 0 {
				head = "message or symptom"
			}
			rows = append(rows, []string{strings.TrimSpace(codes(m.texts) + " " + m.note), m.do})
		}
		if t.title != "" {
			b.WriteString("### " + t.title + "\n\n")
		}
		b.WriteString(table([]string{head, "what to do"}, rows) + "\n")
	}
	return b.String()
}

// field explains a field of a JSON document.
type field struct{ name, meaning string }

func fieldTable(fields []field) string {
	var rows [][]string
	for _, f := range fields {
		rows = append(rows, []string{code(f.name), f.meaning})
	}
	return table([]string{"field", "meaning"}, rows)
}
