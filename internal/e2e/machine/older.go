package machine

import "strings"

// OlderUnit is the unit that "install" of an older daemon wrote to /etc/systemd/system. The
// blank behind the program precedes arguments, of which there are none.
func OlderUnit(daemon, description string) []byte {
	return []byte(strings.NewReplacer("DAEMON", daemon, "DESCRIPTION", description).Replace(`[Unit]
Description=DESCRIPTION
Requires=network-online.target
After=network-online.target

[Service]
PIDFile=/var/run/DAEMON.pid
ExecStartPre=/bin/rm -f /var/run/DAEMON.pid
ExecStart=/usr/bin/DAEMON 
Restart=on-failure

[Install]
WantedBy=multi-user.target
`))
}
