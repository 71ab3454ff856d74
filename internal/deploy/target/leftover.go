package target

import (
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// owner is who has written a unit or drop-in.
type owner int

const (
	foreign   owner = iota // the administrator: it stays, and is named
	installer              // an earlier installer: it is retired
	own                    // "PROGRAM install"
	ours                   // nnf-deploy
)

// unitOwner returns who has written the unit of a program below /etc/systemd/system. A
// unit that the install of an earlier daemon has written names a PID file that no daemon
// ever wrote, and has no other directives than these.
func unitOwner(bin, text string) owner {
	if strings.HasPrefix(text, systemd.WrittenBy(bin)) {
		return own
	}
	keys, values := directives(text)
	for _, k := range keys {
		if !slices.Contains([]string{"Description", "Requires", "After", "PIDFile", "ExecStartPre", "ExecStart", "Restart", "WantedBy"}, k) {
			return foreign
		}
	}
	pid := systemd.OlderPIDFile(bin)
	if values["PIDFile"] == pid && values["ExecStartPre"] == "/bin/rm -f "+pid {
		return installer
	}
	return foreign
}

// dropInOwner returns who has written a drop-in. The drop-in of an earlier installer
// replaces the command by one with the options for the credentials, and sets nothing
// else but the environment.
func dropInOwner(p *product.Daemon, path, text string) owner {
	if path == p.DropIn() {
		return ours
	}
	keys, values := directives(text)
	for _, k := range keys {
		if k != "ExecStart" && k != "Environment" {
			return foreign
		}
	}
	command := values["ExecStart"]
	if path == p.OlderDropIn() && strings.HasPrefix(command, product.Path(p.Name)+" ") &&
		strings.Contains(command, "--service-token-file=") && strings.Contains(command, "--kubernetes-service-host=") {
		return installer
	}
	return foreign
}

// tokenFile returns the file with the token that a drop-in's command names.
func tokenFile(text string) string {
	_, values := directives(text)
	for _, word := range strings.Fields(values["ExecStart"]) {
		if path, ok := strings.CutPrefix(word, "--service-token-file="); ok {
			return path
		}
	}
	return ""
}

// replacesCommand reports whether a drop-in has a command of its own.
func replacesCommand(text string) bool {
	_, values := directives(text)
	return values["ExecStart"] != ""
}

// directives returns the keys in a unit file, and the last value of each.
func directives(text string) (keys []string, values map[string]string) {
	values = map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		key = strings.TrimSpace(key)
		keys = append(keys, key)
		values[key] = strings.Join(strings.Fields(value), " ")
	}
	return keys, values
}
