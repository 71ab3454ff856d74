package machine

import "strings"

// OlderUnit is what the install of a daemon of the older generation has written to
// /etc/systemd/system (contract deploy.md 2). There is a blank behind the program,
// for arguments that are not there.
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
