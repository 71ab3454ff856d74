package commands

import "github.com/compute-daemons/compute-daemons/internal/reference"

// Reference is what the program goes by, for its documentation.
func Reference() reference.Guide {
	var g reference.Guide
	for _, c := range commands {
		g.Commands = append(g.Commands, reference.Command{Name: c.name, Arguments: c.args, Synopsis: c.synopsis(), Short: c.short, Long: c.long, Flags: reference.Flags(c.ownFlags())})
	}
	s := defaults(nil)
	all := s.flagSet("")
	all.BoolP("help", "h", false, "show the help of the command")
	g.Flags = reference.Flags(all)
	for _, e := range environment {
		g.Environment = append(g.Environment, reference.Variable{Name: e.name, Meaning: e.meaning})
	}
	for _, e := range exits {
		g.Exits = append(g.Exits, reference.Exit{Code: e.code, Meaning: e.meaning})
	}
	return g
}
