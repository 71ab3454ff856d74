package reference

import (
	"regexp"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
)

// table returns a table in Markdown.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		for _, c := range cells {
			b.WriteString(strings.TrimRight("| "+strings.ReplaceAll(c, "|", `\|`), " ") + " ")
		}
		b.WriteString("|\n")
	}
	line(head)
	b.WriteString(strings.Repeat("| --- ", len(head)) + "|\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}

// recordTable explains the kinds of records.
func recordTable(kinds []catalog.Kind) string {
	var fields, names []string
	for _, f := range slices.Concat(catalog.FieldsOf("clientmountd"), catalog.FieldsOf("nnf-dm")) {
		fields = append(fields, f.Name)
	}
	for _, k := range kinds {
		names = append(names, k.Event.Name)
	}
	words := regexp.MustCompile(`\b(?:` + strings.Join(fields, "|") + `)\b`)
	records := regexp.MustCompile(`\brecord (` + strings.Join(names, "|") + `)\b`)
	cell := func(s string) string {
		s = mark(catalog.Named(s))
		s = outside(s, func(s string) string { return words.ReplaceAllString(s, "`$0`") })
		return outside(s, func(s string) string { return records.ReplaceAllString(s, "record `$1`") })
	}
	var rows [][]string
	for _, k := range kinds {
		rows = append(rows, []string{code(k.Event.Name), code(k.Event.ID), k.Level, cell(k.What), cell(k.Job), cell(k.Do)})
	}
	return table([]string{"EVENT", "MESSAGE_ID", "level", "what happened", "for the job", "what to do"}, rows)
}

// recordFields explains the fields of a program's records.
func recordFields(program string) string {
	var rows [][]string
	for _, f := range catalog.FieldsOf(program) {
		rows = append(rows, []string{code(f.Name), f.Meaning})
	}
	return table([]string{"field", "meaning"}, rows)
}

// literals matches what is literal in a text without markup.
var literals = regexp.MustCompile(strings.Join([]string{
	`"--[a-z-]+="`, `--[a-z][a-z-]+(?: [A-Z]{3,}\b)?`, // flags
	`"/[\w/]+"`, `/(?:etc|lus|mnt|run|usr|var)(?:/[\w.-]*\w)+/?`, `\b(?:[\w-]+/)*[\w-]+\.md\b`, `\.nnf-servers\.json`, // files
	`\$[A-Z_]+(?:/[\w.]*\w)*`, `\b[A-Z]+=[a-z]+`, `\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b`, // variables, fields, codes
	`\b(?:kubernetes|node|mount|socket|access|options|limits|daemon|metrics|log|runtime)\.[a-z_]+\b(?: = "[^"]*")?`, `\[(?:kubernetes|access|limits)\]`, // settings
	`\b[A-Z][a-z][A-Za-z]*(?:\.\.\.)?=`, // directives of units
	`\bstatus\.error\b`,
	`\b(?:clientmountd|nnf-dm) config [a-z]+`, `\bsystemctl (?:cat [a-z-]+|[a-z-]+)`, `\bkubectl get [a-z]+(?: -o yaml)?`, `\b(?:nvme list(?:-subsys)?|dlm_tool ls|dmesg)\b`, // commands
}, "|"))

// mark puts literals of a text for people into backquotes: flags, settings, variables,
// paths and commands. Texts of the tables have no markup because they are also shown on
// terminals.
func mark(s string) string {
	return outside(s, func(s string) string { return literals.ReplaceAllString(s, "`$0`") })
}

// outside changes the parts of a text that are not in backquotes.
func outside(s string, change func(string) string) string {
	parts := strings.Split(s, "`")
	for i := 0; i < len(parts); i += 2 {
		parts[i] = change(parts[i])
	}
	return strings.Join(parts, "`")
}

// code marks a text as literal.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
