package man

import (
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

// What the pages of programs with sub-commands have in common.

func usages(program string, g cli.Guide) (lines []string) {
	for _, c := range g.Commands {
		lines = append(lines, strings.TrimSpace("`"+program+" "+c.Name+"` [<flags>] "+placeholders(c.Arguments)))
	}
	return lines
}

func commandsAndOptions(p *page, g cli.Guide) {
	p.section("COMMANDS")
	for _, c := range g.Commands {
		p.part(strings.TrimSpace(c.Name + " " + c.Arguments))
		p.text(sentence(c.Short))
		for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
			if paragraph != "" {
				p.text(paragraph)
			}
		}
		flags(p, c.Flags)
	}
	p.section("OPTIONS")
	p.text("These go with every command.")
	flags(p, g.Flags)
}

func environmentOf(p *page, g cli.Guide) {
	p.section("ENVIRONMENT")
	for _, e := range g.Environment {
		p.item("`"+e.Name+"`", e.Meaning+".")
	}
}

func exitsOf(p *page, g cli.Guide) {
	p.section("EXIT STATUS")
	for _, e := range g.Exits {
		p.item("`"+strconv.Itoa(e.Code)+"`", sentence(e.Meaning))
	}
}

// placeholders sets the words of a synopsis that stand for something.
func placeholders(arguments string) string {
	var out []string
	for word := range strings.FieldsSeq(arguments) {
		switch {
		case word == strings.ToLower(word):
			word = "`" + word + "`"
		case strings.HasPrefix(word, "["):
			word = "[<" + strings.Trim(word, "[]") + ">]"
		default:
			name, dots := strings.CutSuffix(word, "...")
			if word = "<" + name + ">"; dots {
				word += "..."
			}
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

func flags(p *page, list []cli.Flag) {
	for _, f := range list {
		term := "`--" + f.Name + "`"
		if f.Letter != "" {
			term = "`-" + f.Letter + "`, " + term
		}
		if f.Value != "" {
			term += " <" + f.Value + ">"
		}
		text := sentence(f.Meaning)
		if f.Default != "" {
			text += " Default: `" + f.Default + "`."
		}
		p.item(term, text)
	}
}
