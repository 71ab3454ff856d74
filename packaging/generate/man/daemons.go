package man

import (
	"maps"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
)

// program is the page of a daemon, in section 8.
func (d *daemon) program(kinds []catalog.Kind) string {
	t := d.table
	p := newPage(d.name(), "8", "System Administration")
	p.text(d.name() + ` - ` + d.lead)
	p.section("SYNOPSIS")
	var usage []string
	for _, c := range synopsis(t) {
		usage = append(usage, c.usage(d.name()))
	}
	p.lines(usage...)
	p.section("DESCRIPTION")
	p.text(t.Summary)
	for _, text := range d.description {
		p.text(text)
	}
	p.section("COMMANDS")
	for _, line := range synopsis(t) {
		for _, c := range line.each() {
			text := d.commands[c.words]
			if text == "" {
				text = sentence(c.does)
			}
			p.item(c.usage(d.name()), text)
		}
	}
	d.options(p)
	p.section("FILES")
	p.items(d.files)
	p.section("ENVIRONMENT")
	p.text("An empty value counts as absent. A flag wins over the environment, which wins over the file.")
	p.items(environments(t))
	p.items(d.environment)
	p.section("SIGNALS")
	p.items(d.signals)
	p.section("EXIT STATUS")
	p.items(d.exits)
	p.section("EXAMPLES")
	for _, e := range d.examples {
		p.example(e.comment, e.lines)
	}
	p.section("JOURNAL")
	p.text("Under systemd the daemon writes to the journal with fields; on a terminal in colours; else as text. `journalctl -x` shows with each record what happened, what it means for the job, and what to do.")
	for _, e := range d.journal {
		p.example(e.comment, e.lines)
	}
	p.text("The kinds of records, by their `EVENT` and `MESSAGE_ID`, which never change their meaning:")
	records(p, kinds)
	seeAlso(p, append([]string{d.name() + ".toml(5)"}, d.also...)...)
	return p.String()
}

// options adds the flags by section, as in the help.
func (d *daemon) options(p *page) {
	t := d.table
	p.section("OPTIONS")
	p.text("Flags take `--flag` <value>, `--flag=`<value>, and one dash instead of two. They win over the environment, which wins over the file.")
	p.item("`--config` <FILE>", "The configuration file, with config.d beside it. Default: `"+t.File+"`.")
	p.item("`-h`, `--help`", "Print the help and end.")
	for _, section := range t.Sections {
		begun := false
		for i := range t.Settings {
			s := &t.Settings[i]
			where, _, _ := strings.Cut(s.Key, ".")
			if where != section.Name || s.Flag == "" {
				continue
			}
			if !begun {
				p.part("Flags for " + section.Name)
				begun = true
			}
			text := s.Help
			if s.Default != "" {
				text += " Default: `" + s.Default + "`."
			}
			p.item(flagTerm(s), text+" Setting `"+s.Key+"`.")
			for _, sw := range s.Switches {
				p.item("`--"+sw.Flag+"`", "The same as `--"+s.Flag+" "+sw.Value+"`.")
			}
		}
	}
	if len(t.Legacy) == 0 {
		return
	}
	p.part("Flags without effect")
	var old []string
	for _, l := range t.Legacy {
		old = append(old, "`--"+l.Flag+"`")
	}
	p.text("Earlier daemons had these. They are accepted, with one warning each: " + strings.Join(old, ", ") + ".")
}

// sentence makes a sentence of a line of the synopsis.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

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

// The following texts are the same for both daemons.

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
