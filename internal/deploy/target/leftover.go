package target

import (
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// owner is the author of a unit or drop-in.
type owner int

const (
	ownerAdministrator owner = iota // the file is kept, and reported
	ownerInstaller                  // an earlier installer: the file is renamed
	ownerProgram                    // "PROGRAM install"
	ownerDeploy                     // nnf-deploy
)

// unitOwner returns the owner of the unit of a program below /etc/systemd/system. The units
// that "install" of the earlier daemons wrote have a PID file that no daemon ever created,
// and only the directives in this function.
func unitOwner(bin, text string) owner {
	if strings.HasPrefix(text, systemd.WrittenBy(bin)) {
		return ownerProgram
	}
	keys, values := directives(text)
	for _, k := range keys {
		if !slices.Contains([]string{"Description", "Requires", "After", "PIDFile", "ExecStartPre", "ExecStart", "Restart", "WantedBy"}, k) {
			return ownerAdministrator
		}
	}
	pid := systemd.OlderPIDFile(bin)
	if values["PIDFile"] == pid && values["ExecStartPre"] == "/bin/rm -f "+pid {
		return ownerInstaller
	}
	return ownerAdministrator
}

// dropInOwner returns the owner of a drop-in. The drop-in of an earlier installer replaces
// the command with one that has the options for the credentials, and otherwise sets only
// the environment.
func dropInOwner(p *product.Daemon, path, text string) owner {
	if path == p.DropIn() {
		return ownerDeploy
	}
	keys, values := directives(text)
	for _, k := range keys {
		if k != "ExecStart" && k != "Environment" {
			return ownerAdministrator
		}
	}
	command := values["ExecStart"]
	if path == p.OlderDropIn() && strings.HasPrefix(command, product.Path(p.Name)+" ") &&
		strings.Contains(command, "--service-token-file=") && strings.Contains(command, "--kubernetes-service-host=") {
		return ownerInstaller
	}
	return ownerAdministrator
}

// tokenFile returns the path of the token file in the command of a drop-in, or "".
func tokenFile(text string) string {
	_, values := directives(text)
	for _, word := range strings.Fields(values["ExecStart"]) {
		if path, ok := strings.CutPrefix(word, "--service-token-file="); ok {
			return path
		}
	}
	return ""
}

// replacesCommand reports whether a drop-in sets ExecStart.
func replacesCommand(text string) bool {
	_, values := directives(text)
	return values["ExecStart"] != ""
}

// directives returns the keys in a unit file, and the last value of each key.
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
