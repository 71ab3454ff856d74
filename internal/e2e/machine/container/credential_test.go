package container

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// credentialFeatures are features of the daemons' tokens.
var credentialFeatures = []feature{
	{"token readable by others", readableToken},
	{"token passed by systemd", passedToken},
}

// units are the commands that start the daemons.
var units = map[string]string{
	"clientmountd": "systemctl start clientmountd",
	"nnf-dm":       "systemctl start nnf-dm.service",
}

// A token that other users can read causes a warning with the next action. With
// strict_credentials the daemon does not start.
func readableToken(t *testing.T, m *machine.Machine) {
	for daemon, start := range units {
		token := "/etc/" + daemon + "/service.token"
		mode := m.Do("stat -c %a " + token)
		m.Do("chmod 0644 " + token + " && " + start)
		warning := m.Do("journalctl --sync; journalctl -b -q --no-pager -o json -p warning -t " + daemon + " | jq -r '[.MESSAGE, .HINT, .PRIORITY] | @tsv'")
		has(t, warning, token, "chmod", "\t4")

		m.Do("systemctl stop " + daemon)
		m.Setting(daemon, "20-test", "strict_credentials = true\n")
		m.Edit(daemon, "[Service]\nRestart=no\n")
		exits(t, m, 1, start)
		if got := m.Property(daemon, "Result"); got != "exit-code" {
			t.Errorf("%s: the result is %s", daemon, got)
		}
		has(t, m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -p err -t "+daemon), token, "chmod", "strict_credentials")

		m.Do("chmod " + mode + " " + token + " && systemctl reset-failed " + daemon + " && " + start)
		m.Do("systemctl is-active " + daemon)
	}
}

// With the drop-in of the examples systemd passes the token to the daemon, and only root can
// read the file.
func passedToken(t *testing.T, m *machine.Machine) {
	for daemon, start := range units {
		drop := daemon + ".service.d"
		m.Do("mkdir -p /etc/systemd/system/" + drop + " && cp /usr/share/doc/" + daemon + "/examples/" + drop + "/50-credentials.conf /etc/systemd/system/" + drop + " && systemctl daemon-reload")
		owner := m.Do("stat -c '%U:%G %a' /etc/" + daemon + "/service.token")
		m.Do("chown root:root /etc/" + daemon + "/service.token && chmod 0600 /etc/" + daemon + "/service.token")
		m.Do(start)
		has(t, m.Do(`tr '\0' ' ' </proc/$(systemctl show --value -p MainPID `+daemon+`)/cmdline`), "--service-token-file=/run/credentials/"+daemon+".service/service.token")
		if daemon == "nnf-dm" {
			// It needs the token for its first request to the API server.
			has(t, exits(t, m, 3, asUser+"nnf-dmctl copy -w missing /mnt/nnf/x /lus/global/"), "could not find workflow")
		} else {
			m.Do(`[ "$(readlink /proc/$(systemctl show --value -p MainPID clientmountd)/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ]`)
		}
		if out := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -p warning -t " + daemon); out != "" {
			t.Errorf("%s warns: %s", daemon, out)
		}
		m.Do("systemctl stop " + daemon + "; set -- " + owner + "; chown $1 /etc/" + daemon + "/service.token; chmod $2 /etc/" + daemon + "/service.token")
	}
}
