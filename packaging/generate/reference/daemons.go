package reference

import (
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// settings returns one table for each section of a daemon's settings.
func settings(t *config.Table) string {
	var b strings.Builder
	for _, section := range t.Sections {
		var rows [][]string
		for i := range t.Settings {
			s := &t.Settings[i]
			where, key, dotted := strings.Cut(s.Key, ".")
			if !dotted {
				where, key = "", s.Key
			}
			if where != section.Name {
				continue
			}
			var env []string
			for _, e := range s.Env {
				env = append(env, e.Name)
			}
			help, flag := s.Help, ""
			if accepted := s.Accepted(); accepted != "" {
				help += " Accepted: " + accepted + "."
			}
			if s.Reload {
				help += " Takes effect on reload."
			}
			if s.Flag != "" {
				flag = "--" + s.Flag
			}
			rows = append(rows, []string{code(key), code(s.Default), code(flag), codes(env), mark(help)})
		}
		title, help := "["+section.Name+"]", text.Wrap(100, "", "", mark(section.Help))+"\n"
		if section.Name == "" {
			title, help = section.Help, ""
		}
		b.WriteString("### " + title + "\n\n" + help + table([]string{"key", "default", "flag", "environment", "meaning"}, rows) + "\n")
	}
	return b.String()
}

// Commands returns the texts about the commands of a daemon, by their words. Words in
// <angle brackets> are placeholders.
func Commands(program string) map[string]string {
	all := map[string]string{
		"":               "Run the daemon until it receives a signal.",
		"config check":   "Read the configuration as the daemon would with these flags, and report errors. This command does not use the network, and does not read the credentials.",
		"config dump":    "Print every value that is in effect, and where it comes from.",
		"config default": "Print the default configuration file, in which every setting is commented out.",
		"status":         "Print whether the daemon is running, the state of its units, and its own status line. The exit code is 0 even if the daemon is stopped, and 1 if it is not installed.",
		"version":        "Print the version.",
	}
	switch program {
	case "clientmountd":
		all["install"] = "Enable the unit of the package. Without the package, write a unit with these flags to /etc/systemd/system and enable it. The daemon is not started."
		all["remove"] = "Stop and disable the daemon, and delete the unit that `install` wrote. Drop-ins are kept and listed. Mounts stay."
		all["start"] = "Same as `systemctl start clientmountd`, but fails if the daemon is already running."
		all["stop"] = "Same as `systemctl stop clientmountd`, but fails if the daemon is not running. Mounts stay."
		all["status -o json"] = "Print the same and the mounts as a JSON document for programs."
	case "nnf-dm":
		all[""] = "Run the daemon until it receives a signal or, under socket activation, is idle."
		all["install"] = "Enable the socket unit of the package. Without the package, create the user `nnf-dm`, write units with these flags to /etc/systemd/system and enable them. The units are not started."
		all["remove"] = "Stop and disable the daemon, and delete the units that `install` wrote. Drop-ins are kept and listed."
		all["start"] = "Start the socket and the service. Fails if the service is already running."
		all["stop"] = "Stop the socket and the service. Fails if neither is running."
		all["status -o json"] = "Print the same as a JSON document for programs."
	}
	return all
}

func daemonCommands(t *config.Table) string {
	texts := Commands(t.Program)
	var rows [][]string
	for _, several := range t.Synopsis {
		for _, c := range several.Each() {
			text := texts[strings.TrimSpace(c.Words+" "+c.Option)]
			if text == "" { // described in the part about tools
				text = Sentence(c.Meaning)
			}
			rows = append(rows, []string{code(c.Usage(t.Program)), mark(text)})
		}
	}
	rows = append(rows, []string{code(t.Program + " --help"), "Print all flags."})
	return table([]string{"command", "meaning"}, rows)
}

// DaemonTools describes the sub-commands of a daemon that report about the node, without those for
// help and completion, which the daemon has itself; nil: it has none.
func DaemonTools(program string) *cli.Guide {
	if program != clientmountd.Name {
		return nil
	}
	g := clientmountd.Tools.Guide()
	g.Commands = slices.DeleteFunc(g.Commands, func(e cli.Entry) bool { return e.Name == "help" || e.Name == "completion" })
	return &g
}

// ToolNames returns the names of the sub-commands that DaemonTools describes.
func ToolNames(program string) (names []string) {
	if g := DaemonTools(program); g != nil {
		for _, c := range g.Commands {
			names = append(names, c.Name)
		}
	}
	return names
}

// Exit is an exit code of a daemon.
type Exit struct{ Code, Meaning string }

// Exits returns the exit codes of a daemon and of its commands.
func Exits(program string) []Exit {
	stopped := "The daemon was stopped, or the command succeeded."
	if program == "nnf-dm" {
		stopped = "The daemon was stopped or was idle, or the command succeeded."
	}
	return []Exit{
		{strconv.Itoa(daemon.ExitOK), stopped},
		{strconv.Itoa(daemon.ExitFailure), "The daemon could not start or exited because of an error, or the command failed. Errors are printed as one line on standard error."},
		{strconv.Itoa(daemon.ExitUsage), "Usage error."},
		{"128 + N", "A second signal, with number N, ended the daemon during the shutdown."},
	}
}

func daemonExits(program string) string {
	var rows [][]string
	for _, e := range Exits(program) {
		rows = append(rows, []string{e.Code, e.Meaning})
	}
	return table([]string{"code", "meaning"}, rows)
}

// statusFields explains the document of "status -o json", which is systemd.Status.
func statusFields(program string) (list []field) {
	list = []field{
		{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
		{"program", "name of the program"},
		{"program_version", "version of the program that prints the document. After an upgrade without a restart, the running daemon may be older"},
		{"service.installed", "whether systemd knows the unit"},
		{"service.enabled", "whether the unit, or the socket that starts it, is enabled"},
		{"service.active", "whether the process exists"},
		{"service.ready", "whether the daemon has reported that it is ready"},
		{"service.pid", "process id; 0 if there is no process"},
		{"service.status", "status line of the daemon, for people"},
		{"service.error", "why nothing more is known; missing if there is no error"},
		{"units[].unit", "name of the unit"},
		{"units[].load", "`LoadState` of systemd"},
		{"units[].active", "`ActiveState` of systemd"},
		{"units[].sub", "`SubState` of systemd"},
		{"units[].unit_file", "`UnitFileState` of systemd"},
		{"units[].result", "`Result` of systemd"},
		{"renewal.enabled", "whether the daemon renews an expiring token of its account on this node (`kubernetes.renew_token`)"},
		{"renewal.directory", "directory for the renewed token (`daemon.state_directory`)"},
		{"renewal.error", "why the other two are not known; missing if there is no error. Programs that cannot renew tokens do not have `renewal`"},
	}
	if program == "clientmountd" {
		list = append(list,
			field{"api", "whether the running daemon reaches the API server: `answers`, `no answer` or `connecting`; missing if no daemon runs"},
			field{"mounts.count", "number of ClientMounts that have at least one recorded mount that is in the mount table"},
			field{"mounts.unreadable", "number of records that cannot be used; something may be mounted"},
			field{"mounts.error", "why `count` is not known; missing if there is no error"})
		return append(append(list, tokenFields("token")...),
			field{"paths.program", "path of the program"},
			field{"paths.runtime_directory", "the runtime directory"},
			field{"paths.records", "directory of the records"})
	}
	return append(append(list, moverTokenFields("token")...),
		field{"paths.program", "path of the program"},
		field{"paths.socket", "path of the socket"})
}
