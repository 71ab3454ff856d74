package target

import (
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// Whose a file of systemd is.
type owner int

const (
	foreign   owner = iota // the administrator's: it stays, and is named
	installer              // an earlier installer's: retired
	own                    // the program's own install has written it
	ours                   // nnf-deploy's
)

// unitOwner tells whose the unit of a program below /etc/systemd/system is. What an
// earlier daemon's install has written (contract deploy.md 2) is known by the
// pid file that nobody writes, and by having nothing else.
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

// dropInOwner tells whose a drop-in is. That of the earlier installer (contract
// deploy.md 5.3) replaces the command by one with the options for the credentials,
// and sets nothing but the environment besides.
func dropInOwner(bin, path, text string) owner {
	if path == dropIn(bin) {
		return ours
	}
	keys, values := directives(text)
	for _, k := range keys {
		if k != "ExecStart" && k != "Environment" {
			return foreign
		}
	}
	command := values["ExecStart"]
	if strings.HasSuffix(path, "/override.conf") && strings.HasPrefix(command, "/usr/bin/"+bin+" ") &&
		strings.Contains(command, "--service-token-file=") && strings.Contains(command, "--kubernetes-service-host=") {
		return installer
	}
	return foreign
}

// tokenFile is the file with the token that a drop-in's command names.
func tokenFile(text string) string {
	_, values := directives(text)
	for _, word := range strings.Fields(values["ExecStart"]) {
		if path, ok := strings.CutPrefix(word, "--service-token-file="); ok {
			return path
		}
	}
	return ""
}

// replacesCommand tells whether a drop-in has a command of its own.
func replacesCommand(text string) bool {
	_, values := directives(text)
	return values["ExecStart"] != ""
}

// directives are the keys in a file of systemd, and the last value of each.
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
