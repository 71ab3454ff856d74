package man

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
	"github.com/compute-daemons/compute-daemons/packaging/generate/reference"
)

// program is the page of a daemon, in section 8.
func (d *daemon) program(kinds []catalog.Kind) string {
	t := d.table
	p := newPage(d.name(), "8", "System Administration")
	p.text(d.name() + ` - ` + d.lead)
	p.section("SYNOPSIS")
	var lines []string
	for _, c := range t.Synopsis {
		lines = append(lines, usage(d.name(), c))
	}
	p.lines(lines...)
	p.section("DESCRIPTION")
	for _, text := range d.description {
		p.text(text)
	}
	p.section("COMMANDS")
	texts := reference.Commands(d.name())
	for _, several := range t.Synopsis {
		for _, c := range several.Each() {
			text := texts[strings.TrimSpace(c.Words+" "+c.Option)]
			if text == "" {
				text = reference.Sentence(c.Meaning) + " See below."
			}
			p.item(usage(d.name(), c), text)
		}
	}
	if d.tools != nil {
		for _, c := range d.tools.Commands {
			command(p, c)
		}
		p.part("Flags of " + toolNames(d.tools))
		flags(p, d.tools.Flags)
	}
	d.options(p)
	p.section("FILES")
	p.items(d.files)
	p.section("ENVIRONMENT")
	p.text("Flags override the environment, which overrides the file. An empty value counts as unset.")
	p.items(environments(t))
	p.items(d.environment)
	p.section("SIGNALS")
	p.items(d.signals)
	p.section("EXIT STATUS")
	for _, e := range reference.Exits(d.name()) {
		p.item("`"+e.Code+"`", e.Meaning)
	}
	p.section("EXAMPLES")
	for _, e := range d.examples {
		p.example(e.comment, e.lines)
	}
	p.section("JOURNAL")
	p.text("Under systemd, the daemon logs to the journal with structured fields. On a terminal it prints coloured lines, otherwise plain text. `journalctl -x` explains each record: what happened, what it means for the job, and what to do.")
	for _, e := range d.journal {
		p.example(e.comment, e.lines)
	}
	p.text("Each kind of record has a stable `EVENT` and `MESSAGE_ID`:")
	records(p, kinds)
	seeAlso(p, append([]string{d.name() + ".toml(5)"}, d.also...)...)
	return p.String()
}

// options adds the flags by section, as in the help.
func (d *daemon) options(p *page) {
	t := d.table
	p.section("OPTIONS")
	p.text("Write flags as `--flag` <value> or `--flag=`<value>; one dash works as well. Flags override the environment, which overrides the file.")
	p.item("`--config` <FILE>", "The configuration file. The files in the directory config.d next to it are read as well. Default: `"+t.File+"`.")
	p.item("`-h`, `--help`", "Print the help and exit.")
	for _, section := range t.Sections {
		started := false
		for i := range t.Settings {
			s := &t.Settings[i]
			where, _, _ := strings.Cut(s.Key, ".")
			if where != section.Name || s.Flag == "" {
				continue
			}
			if !started {
				p.part("Flags for " + section.Name)
				started = true
			}
			text := s.Help
			if s.Default != "" {
				text += " Default: `" + s.Default + "`."
			}
			p.item(flagTerm(s), text+" Setting: `"+s.Key+"`.")
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
	p.text("These flags of the older daemons are accepted and ignored; the daemon logs one warning for each: " + strings.Join(old, ", ") + ".")
}

func clientMount() *daemon {
	return &daemon{
		table: clientmountd.Program().Table(),
		tools: reference.DaemonTools("clientmountd"),
		lead:  "mount rabbit storage on a compute node",
		description: []string{
			"clientmountd runs as root on every compute node of a Near-Node Flash (rabbit) system. It reconciles the `ClientMount` objects in the namespace that has the name of the node. To mount, it reads the pinned storage profile, adds its finalizer to the object, activates the block devices with LVM, mounts the file systems, runs the hooks of the profile, and writes the result to the status of the object. To unmount, it undoes these steps in reverse order.",
			"The daemon is idle until a `ClientMount` changes: it holds one watch on the API server, does not poll, and opens no port. If the API server is unreachable, mounts stay as they are. After a failure the daemon retries with growing delays. A mount that hangs does not delay other mounts.",
			"Stopping, restarting or updating the daemon does not affect mounts. Before each operation the daemon saves a record in its runtime directory, so that after a crash the next start continues where the previous one stopped. The daemon unmounts only file systems that it has mounted or taken over from an earlier daemon.",
			"The daemon must run in the mount namespace of the host. `ProtectSystem=`, `PrivateTmp=` and similar settings of a unit create a private mount namespace, in which no job would see the mounts. The daemon then refuses to start, unless `daemon.mount_namespace` is \"any\".",
		},
		files:       daemonFiles("clientmountd", item{"`/run/clientmountd`", "The runtime directory, with a record for each ClientMount in `mounts`, the reasons why others cannot be mounted in `failures`, the timelines of past ClientMounts in history.jsonl, and the state of the daemon in daemon.json. It survives a restart of the daemon, but not a reboot. Root must own it, and no other user may have access."}),
		signals:     daemonSignals("The running step of a mount may finish within `daemon.shutdown_timeout`. The daemon starts no further step. Mounts stay."),
		environment: commonEnvironment(),
		examples: []example{
			{"Check the configuration, and print the values in effect:", "clientmountd config check\nclientmountd config dump"},
			{"Show the mounts and whether the API server answers:", "systemctl status clientmountd"},
			{"Change the command line on this node. The empty ExecStart= removes the packaged one:", "systemctl edit clientmountd\n\n[Service]\nExecStart=\nExecStart=/usr/bin/clientmountd --log-level=debug"},
			{"Run a daemon that only logs what it would do:", "clientmountd --mode=mock --runtime-directory=/tmp/records \\\n    --kubeconfig=$HOME/.kube/config"},
		},
		tuning: []example{
			{"/etc/clientmountd/config.toml:", "version = 1\n\n[kubernetes]\nservice_host = \"10.0.0.5\"\nservice_port = \"6443\"\ntoken_file   = \"/etc/clientmountd/service.token\"\ncert_file    = \"/etc/clientmountd/service.cert\""},
			{"/etc/clientmountd/config.d/site.toml, for hooks that take a long time and for storage profiles that set $MOUNT_PATH to a directory below /scratch:", "[mount]\nhook_timeout = \"20m\"\nroots        = [\"/mnt\", \"/scratch\"]"},
		},
		journal: []example{
			{"Show all records of one workflow on this node:", "journalctl -u clientmountd WORKFLOW=job7"},
			{"Show warnings and errors since boot, with explanations:", "journalctl -u clientmountd -p warning -b -x"},
			{"Show how long mounts took (DURATION_MS):", "journalctl -u clientmountd EVENT=mounted -o verbose"},
		},
		also: []string{"nnf-dm(8)", "systemctl(1)", "journalctl(1)", "mount(8)", "lvchange(8)", "nvme(1)"},
	}
}

// The following texts are the same for both daemons.

func daemonFiles(name string, own ...item) []item {
	list := []item{
		{"`/etc/" + name + "/config.toml`, `/etc/" + name + "/config.d/*.toml`", "The configuration; see `" + name + ".toml`(5)."},
		{"`/etc/" + name + "/service.token`, `/etc/" + name + "/service.cert`", "The usual location of the token and of the CA of the API server, set by `kubernetes.token_file` and `kubernetes.cert_file`. Only root and the daemon should be able to read the token. The daemon picks up new contents without a restart."},
		{"`/var/lib/" + name + "/service.token`", "The token that the daemon has renewed, if it has an account of its own on this node. `daemon.state_directory` sets the directory."},
	}
	list = append(list, own...)
	return append(list,
		item{"`/usr/lib/systemd/system/" + name + ".service`", "The unit. Do not edit it in place; use `systemctl edit " + name + "`."},
		item{"`/usr/lib/systemd/system/" + name + ".service.d/10-runtime.conf`", "Limits of the Go runtime, with comments that explain them."},
	)
}

func daemonSignals(stop string) []item {
	return []item{
		{"`SIGTERM`, `SIGINT`", "Stop the daemon. " + stop + " A second signal terminates the daemon immediately."},
		{"`SIGHUP`", "Reload the configuration. If it contains an error, the daemon keeps the old one."},
		{"`SIGABRT`", "Sent by systemd if the daemon does not answer the watchdog. The daemon writes the stacks of all goroutines to the journal and exits."},
	}
}

func commonEnvironment() []item {
	return []item{
		{"`KUBECONFIG`, `HOME`", "Where the daemon looks for a kubeconfig if no API server is configured."},
		{"`HTTP2_READ_IDLE_TIMEOUT_SECONDS`, `HTTP2_PING_TIMEOUT_SECONDS`", "The daemon sends an HTTP/2 ping to the API server after this time without traffic, and waits this long for the answer. By default it sends no pings: the kernel detects a dead connection."},
		{"`HTTPS_PROXY`, `NO_PROXY`", "The proxy for connections to the API server, and the addresses that are contacted directly."},
		{"`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `JOURNAL_STREAM`", "Set by systemd for `Type=notify` and `WatchdogSec=`, and to show that standard error is connected to the journal."},
		{"`NO_COLOR`, `TERM`", "The terminal output has no colours if `NO_COLOR` is set or `TERM` is dumb."},
	}
}

func nnfdm() *daemon {
	return &daemon{
		table: new(server.Configuration).Table(),
		lead:  "serve the Copy Offload API on a compute node",
		description: []string{
			"Jobs connect to nnf-dm over a Unix socket to copy data from rabbit storage to a global Lustre file system. For each copy the daemon creates an `NnfDataMovement` object, which the rabbit executes. On request it reports progress, cancels the copy, or deletes the object. The daemon itself copies no data and needs no privileges. `nnf-dmctl`(1) is a client for the command line and for scripts.",
			"systemd listens on the socket and starts the daemon when the first client connects. After `daemon.idle_timeout` without work the daemon exits. No client is refused while it exits or restarts: the connection waits in the socket. Stopping, restarting or updating the daemon does not affect data movements. Without the socket unit the daemon creates the socket and keeps running.",
			"The daemon identifies callers by kernel peer credentials (SO_PEERCRED). Users can copy for workflows that have their user id, and can see, cancel and delete the copies of these workflows. The rabbit copies with the user and group of the workflow. Root can act on all workflows if `access.root_may_all` is set. The daemon checks paths and options before they reach the rabbit, and limits the resources that each user can take.",
			"With `options.policy = \"any\"`, every user who may copy can run commands as root on the rabbit. Use it only if you trust your users as you trust root.",
		},
		files: daemonFiles("nnf-dm",
			item{"`/run/nnf-dm.sock`", "The socket. Clients find it as /var/run/nnf-dm.sock, too, because /var/run is a link to /run."},
			item{"`/usr/lib/systemd/system/nnf-dm.socket`", "The unit of the socket."},
			item{"`/usr/lib/systemd/system/nnf-dm.timer`", "The timer that starts the daemon for the renewal of its token. It is off by default; `nnf-deploy install --identity per-node` enables it."}),
		signals: daemonSignals("The daemon accepts no further connections; under socket activation they wait in the socket until the next start. A `Status` of version 1 that waits returns the last known state; `Watch` and `Wait` of version 2 end with `UNAVAILABLE`. Other requests may finish within `daemon.shutdown_timeout`. The rabbit keeps copying."),
		environment: append(commonEnvironment(),
			item{"`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`", "Set by systemd when it passes the socket to the daemon."}),
		examples: []example{
			{"Enable socket activation, now and at each boot:", "systemctl enable --now nnf-dm.socket"},
			{"Check the configuration, and print the values in effect:", "nnf-dm config check\nnnf-dm config dump"},
			{"Change the command line on this node. The empty ExecStart= removes the packaged one:", "systemctl edit nnf-dm\n\n[Service]\nExecStart=\nExecStart=/usr/bin/nnf-dm --log-level=debug"},
			{"Test a client without Kubernetes and without copying data:", "nnf-dm --simulated --socket=/tmp/dm.sock &\nNNF_DM_SOCKET=/tmp/dm.sock nnf-dmctl version"},
		},
		tuning: []example{
			{"/etc/nnf-dm/config.toml:", "version = 1\n\n[kubernetes]\nservice_host = \"10.0.0.5\"\nservice_port = \"6443\"\ntoken_file   = \"/etc/nnf-dm/service.token\"\ncert_file    = \"/etc/nnf-dm/service.cert\""},
			{"/etc/nnf-dm/config.d/site.toml, to allow one more option of dcp and to lower the rate of new copies:", "[options]\ndcp = [\"--chunksize=\"]\n\n[limits]\ncreates_per_second = 10\ncreate_burst       = 50"},
		},
		journal: []example{
			{"Show refused requests with explanations:", "journalctl -u nnf-dm EVENT=dm-refused -x"},
			{"Show the copies of one workflow:", "journalctl -u nnf-dm WORKFLOW=default/job7"},
			{"Show warnings and errors since boot, with explanations:", "journalctl -u nnf-dm -p warning -b -x"},
		},
		also: []string{"nnf-dmctl(1)", "clientmountd(8)", "systemctl(1)", "journalctl(1)", "systemd.socket(5)"},
	}
}
