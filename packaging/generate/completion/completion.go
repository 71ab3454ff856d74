// Package completion generates the bash completion scripts of the daemons from their
// tables: commands, flags, and values of flags.
//
// It must not know what a setting does.
package completion

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
)

//go:embed daemon.bash
var pattern string

// Daemon returns the script for the program of a table. tools are the sub-commands whose words the
// program completes itself.
func Daemon(t *config.Table, tools []string) string {
	return strings.NewReplacer(
		"@PROGRAM@", t.Program,
		"@FUNCTION@", "_"+strings.ReplaceAll(t.Program, "-", "_"),
		"@FLAGS@", strings.Join(flags(t), " "),
		"    @VALUES@\n", values(t),
		"@WORDS@", strings.Join(words(t), " "),
		"    @COMMANDS@\n", commands(t),
		"  @TOOLS@\n", delegated(tools),
	).Replace(pattern)
}

// delegated returns the part of the script for these sub-commands.
func delegated(tools []string) string {
	if len(tools) == 0 {
		return ""
	}
	return fmt.Sprintf("  case $first in\n    %s)\n", strings.Join(tools, " | ")) + `      {
        read -r kind || return 0
        mapfile -t COMPREPLY
      } < <("${COMP_WORDS[0]}" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
      case $kind in
        files) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        directories) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
      esac
      return
      ;;
  esac

`
}

// flags returns the flags that the help shows.
func flags(t *config.Table) []string {
	list := []string{"--config"}
	for _, s := range t.Settings {
		if s.Flag == "" {
			continue
		}
		list = append(list, "--"+s.Flag)
		for _, sw := range s.Switches {
			list = append(list, "--"+sw.Flag)
		}
	}
	return append(list, "--help")
}

// values returns the cases for the word after a flag.
func values(t *config.Table) string {
	var b strings.Builder
	files, directories, others, switches := []string{"--config"}, []string(nil), []string(nil), []string(nil)
	for _, s := range t.Settings {
		flag := "--" + s.Flag
		switch {
		case s.Flag == "":
			continue
		case s.Kind == config.Enum:
			fmt.Fprintf(&b, "    %s) words='%s' ;;\n", flag, strings.Join(s.Values, " "))
		case s.Kind == config.Bool:
			switches = append(switches, flag)
		case s.Unit == "FILE" || s.Unit == "PATH":
			files = append(files, flag)
		case s.Unit == "DIR":
			directories = append(directories, flag)
		default:
			others = append(others, flag)
		}
		for _, sw := range s.Switches {
			switches = append(switches, "--"+sw.Flag)
		}
	}
	for _, c := range []struct {
		flags []string
		then  string
	}{{files, "kind='file'"}, {directories, "kind='directory'"}, {others, "return"}} {
		if len(c.flags) > 0 {
			fmt.Fprintf(&b, "    %s) %s ;;\n", strings.Join(c.flags, " | "), c.then)
		}
	}
	if len(switches) > 0 {
		fmt.Fprintf(&b, "    %s) if [[ -n $assigned ]]; then words='true false'; fi ;;\n", strings.Join(switches, " | "))
	}
	return b.String()
}

// command is a command of the program: its words, and whether flags may follow.
type command struct {
	words []string
	flags bool
}

// listed returns the commands of the table. An option of one command only is documented
// in the manual.
func listed(t *config.Table) (list []command) {
	for _, several := range t.Synopsis {
		for _, c := range several.Each() {
			if c.Words != "" && c.Option == "" {
				list = append(list, command{strings.Fields(c.Words), c.Flags})
			}
		}
	}
	return list
}

// words returns the first words of all commands.
func words(t *config.Table) (list []string) {
	for _, c := range listed(t) {
		if !slices.Contains(list, c.words[0]) {
			list = append(list, c.words[0])
		}
	}
	return list
}

// commands returns the cases for the words after the first one.
func commands(t *config.Table) string {
	var b strings.Builder
	for _, first := range words(t) {
		var second, withFlags []string
		alone := false
		for _, c := range listed(t) {
			switch {
			case c.words[0] != first:
			case len(c.words) == 1:
				alone = c.flags
			default:
				second = append(second, c.words[1])
				if c.flags {
					withFlags = append(withFlags, c.words[1])
				}
			}
		}
		switch {
		case len(second) > 0:
			fmt.Fprintf(&b, "    %s)\n      if ((COMP_CWORD == 2)); then\n        words='%s'\n      else\n        case $second in\n          %s) words=$flags ;;\n        esac\n      fi\n      ;;\n",
				first, strings.Join(second, " "), strings.Join(withFlags, " | "))
		case alone:
			fmt.Fprintf(&b, "    %s) words=$flags ;;\n", first)
		}
	}
	return b.String()
}
