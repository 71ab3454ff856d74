package man

import "github.com/compute-daemons/compute-daemons/internal/datamovement/server"

func nnfdm() *daemon {
	return &daemon{
		table: new(server.Configuration).Table(),
		lead:  "serve the Copy Offload API on a compute node",
		description: []string{
			"A job asks it over a Unix socket to copy between rabbit storage and a global Lustre file system. It makes an `NnfDataMovement` object, which the rabbit executes, tells how far that is, cancels and deletes it. It copies nothing itself and needs no privileges. `nnf-dmctl`(1) is a client for people and scripts.",
			"systemd holds the socket and starts it with the first client; after `daemon.idle_timeout` without work it ends. No client is refused by that, nor by a restart. Data movements are never touched by stopping, restarting or updating it. Without the socket unit it makes its socket itself and stays.",
			"A caller is whom the kernel names for the connection. Users may copy for, and see, cancel and delete what belongs to, workflows with their own user id; copies are made with the user and group of the workflow. Root may act for all, when `access.root_may_all`. Paths and options are checked before they reach the rabbit. What one user may take is limited.",
			"With `options.policy = \"any\"` every user who may copy can run commands as root on the rabbit: it is for sites that trust their users as they trust root.",
		},
		commands: daemonCommands(map[string]string{
			"":        "Run the daemon, until a signal ends it or, under socket activation, it is idle.",
			"install": "Enable the socket of the package. Without the package, make the user `nnf-dm`, write units with these flags to /etc/systemd/system and enable them. They are not started.",
			"remove":  "Stop, disable, and delete the units that `install` wrote. Drop-ins stay and are named.",
			"start":   "Start the socket and the service; an error when the service runs already.",
			"stop":    "Stop the socket and the service; an error when neither runs.",
		}),
		files: daemonFiles("nnf-dm",
			item{"`/run/nnf-dm.sock`", "The socket, also known as /var/run/nnf-dm.sock."},
			item{"`/usr/lib/systemd/system/nnf-dm.socket`", "The unit that holds it."}),
		signals: daemonSignals("Nobody new is let in, waits end with what is known, other requests may end within `daemon.shutdown_timeout`. The rabbit copies on."),
		environment: append(commonEnvironment(),
			item{"`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`", "Set by systemd when it hands over the socket."}),
		exits: daemonExits("Ended as asked, or because it was idle."),
		examples: []example{
			{"Let it be started by its socket, now and at each boot:", "systemctl enable --now nnf-dm.socket"},
			{"Is the configuration right, and what is in effect?", "nnf-dm config check\nnnf-dm config dump"},
			{"Give it other arguments on this node; the empty line takes the old ones away:", "systemctl edit nnf-dm\n\n[Service]\nExecStart=\nExecStart=/usr/bin/nnf-dm --log-level=debug"},
			{"Try a client without Kubernetes and without copying:", "nnf-dm --simulated --socket=/tmp/dm.sock &\nNNF_DM_SOCKET=/tmp/dm.sock nnf-dmctl version"},
		},
		tuning: []example{
			{"/etc/nnf-dm/config.toml:", "version = 1\n\n[kubernetes]\nservice_host = \"10.0.0.5\"\nservice_port = \"6443\"\ntoken_file   = \"/etc/nnf-dm/service.token\"\ncert_file    = \"/etc/nnf-dm/service.cert\""},
			{"/etc/nnf-dm/config.d/site.toml, for one more option of dcp and fewer copies at once:", "[options]\ndcp = [\"--chunksize=\"]\n\n[limits]\ncreates_per_second = 10\ncreate_burst       = 50"},
		},
		journal: []example{
			{"Who was refused what:", "journalctl -u nnf-dm EVENT=dm-refused -x"},
			{"What was copied for a workflow:", "journalctl -u nnf-dm WORKFLOW=default/job7"},
			{"What needs a look, since boot, with explanations:", "journalctl -u nnf-dm -p warning -b -x"},
		},
		also: []string{"nnf-dmctl(1)", "clientmountd(8)", "systemctl(1)", "journalctl(1)", "systemd.socket(5)"},
	}
}
