package man

import (
	"maps"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
)

func clientmountd() *daemon {
	return &daemon{
		table: new(clientmount.Configuration).Table(),
		lead:  "mount rabbit storage on a compute node",
		description: []string{
			"It runs as root on every compute node of a Near-Node Flash (rabbit) system. Its work is the `ClientMount` objects in the namespace that has the node's name. For each it puts its finalizer on the object, reads the pinned storage profile, activates the block devices by LVM, mounts, runs the hooks of the profile, and writes into the status how that went; to unmount it goes the same way backwards.",
			"It sleeps until something changes: there is one watch on the API server, no port, no timer. When the API server is away, mounts stay as they are. Failures are tried again, ever more slowly; one that hangs never holds up another.",
			"Mounts are never touched by stopping, restarting or updating it. What it is about to do is noted in its runtime directory first, so that the next start goes on where a crash came in between. What it did not mount it does not unmount.",
			"It must live in the host's mount namespace: a unit with `ProtectSystem=`, `PrivateTmp=` or the like gives it one of its own, and nobody else sees what it mounts.",
		},
		commands: daemonCommands(map[string]string{
			"install": "Enable the unit of the package. Without the package, write a unit with these flags to /etc/systemd/system and enable it. It is not started.",
			"remove":  "Stop, disable, and delete the unit that `install` wrote. Drop-ins stay and are named; mounts stay.",
			"start":   "The same as `systemctl start clientmountd`; an error when it runs already.",
			"stop":    "The same as `systemctl stop clientmountd`; an error when it does not run. Mounts stay.",
		}),
		files:       daemonFiles("clientmountd", item{"`/run/clientmountd`", "Its runtime directory, with a record for each ClientMount in `mounts`. It survives a restart of the daemon and vanishes at boot. It must belong to root and be closed to others."}),
		signals:     daemonSignals("The running step of a mount may end within `daemon.shutdown_timeout`, no new one is begun, mounts stay."),
		environment: commonEnvironment(),
		exits:       daemonExits("Ended as asked."),
		examples: []example{
			{"Is the configuration right, and what is in effect?", "clientmountd config check\nclientmountd config dump"},
			{"Which mounts does it have, and does the API server answer?", "systemctl status clientmountd"},
			{"Give it other arguments on this node; the empty line takes the old ones away:", "systemctl edit clientmountd\n\n[Service]\nExecStart=\nExecStart=/usr/bin/clientmountd --log-level=debug"},
			{"A daemon by hand that only logs what it would do:", "clientmountd --mode=mock --runtime-directory=/tmp/records --kubeconfig=$HOME/.kube/config"},
		},
		tuning: []example{
			{"/etc/clientmountd/config.toml:", "version = 1\n\n[kubernetes]\nservice_host = \"10.0.0.5\"\nservice_port = \"6443\"\ntoken_file   = \"/etc/clientmountd/service.token\"\ncert_file    = \"/etc/clientmountd/service.cert\""},
			{"/etc/clientmountd/config.d/site.toml, for hooks that take long, and storage profiles that set $MOUNT_PATH to a directory below /scratch:", "[mount]\nhook_timeout = \"20m\"\nroots        = [\"/mnt\", \"/scratch\"]"},
		},
		journal: []example{
			{"All about one workflow on this node:", "journalctl -u clientmountd WORKFLOW=job7"},
			{"What needs a look, since boot, with explanations:", "journalctl -u clientmountd -p warning -b -x"},
			{"How long mounts took:", "journalctl -u clientmountd EVENT=mounted -o verbose"},
		},
		also: []string{"nnf-dm(8)", "systemctl(1)", "journalctl(1)", "mount(8)", "lvchange(8)", "nvme(1)"},
	}
}

// What the daemons have in common.

func daemonCommands(own map[string]string) map[string]string {
	all := map[string]string{
		"":               "Run the daemon, until a signal ends it.",
		"config check":   "Read the configuration as the daemon would with these flags, and say what is wrong. No network is used.",
		"config dump":    "Show every value that is in effect, and where it came from.",
		"config default": "Print the configuration file as it is installed, with every setting commented out.",
		"status":         "Whether it runs, the state of its units, and what it reports. Ends with 0 also when it is stopped, with 1 when it is not installed.",
	}
	maps.Copy(all, own)
	return all
}

func daemonFiles(name string, own ...item) []item {
	list := []item{
		{"`/etc/" + name + "/config.toml`, `/etc/" + name + "/config.d/*.toml`", "The configuration, see `" + name + ".toml`(5)."},
		{"`/etc/" + name + "/service.token`, `/etc/" + name + "/service.cert`", "Where token and CA of the API server are by custom; `kubernetes.token_file` and `kubernetes.cert_file` name them. Nobody but root and the daemon may be able to read the token. New contents are used without a restart."},
	}
	list = append(list, own...)
	return append(list,
		item{"`/usr/lib/systemd/system/" + name + ".service`", "The unit. Change it by `systemctl edit " + name + "`, never in place."},
		item{"`/usr/lib/systemd/system/" + name + ".service.d/10-runtime.conf`", "Limits of the Go runtime, with the reasons."},
	)
}

func daemonSignals(stop string) []item {
	return []item{
		{"`SIGTERM`, `SIGINT`", "End. " + stop + " A second one ends at once."},
		{"`SIGHUP`", "Read the configuration again. A wrong one changes nothing."},
		{"`SIGABRT`", "What systemd sends when the watchdog gets no answer: the journal then shows where each goroutine was."},
	}
}

func daemonExits(ended string) []item {
	return []item{
		{"`0`", ended},
		{"`1`", "It could not start or run, or the command has failed. What is wrong is one line on standard error."},
		{"`2`", "The command line is wrong."},
		{"`128` and the number of a signal", "A second signal ended the shutdown."},
	}
}

func commonEnvironment() []item {
	return []item{
		{"`KUBECONFIG`, `HOME`", "Where a kubeconfig is looked for when no API server is named."},
		{"`HTTP2_READ_IDLE_TIMEOUT_SECONDS`, `HTTP2_PING_TIMEOUT_SECONDS`", "After how long a silence the API server is asked for a sign of life, and how long the answer may take. By default it is not asked: the kernel finds out whether the connection is alive."},
		{"`HTTPS_PROXY`, `NO_PROXY`", "A proxy on the way to the API server, and the addresses that need none."},
		{"`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `JOURNAL_STREAM`", "Set by systemd: for `Type=notify`, for `WatchdogSec=`, and to know that the log goes to the journal."},
		{"`NO_COLOR`, `TERM`", "No colours on the terminal when the first is set or the second is dumb."},
	}
}
