package clientmount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// Program returns clientmountd.
func Program() *daemon.Program {
	return &daemon.Program{
		Name:          "clientmountd",
		Configuration: func() daemon.Configuration { return new(Configuration) },
		ConfigRefused: eventConfigRefused,
		Service: systemd.Service{
			Description: "Data Workflow Service (DWS) Client Mount Service",
			Units:       []systemd.Unit{{Name: "clientmountd.service", Text: units.ClientmountdService}},
		},
		Describe: describeStatus,
	}
}

// Configuration is the settings of clientmountd.
type Configuration struct {
	daemon.Settings
	Controller       Options // only the fields with settings; Start sets the others
	RuntimeDirectory string  // directory of the records
	MountNamespace   string  // "host" or "any"
}

// Start builds the controller.
func (c *Configuration) Start(p *daemon.Process) (daemon.Service, error) {
	client, err := p.Dial("")
	if err != nil {
		return nil, err
	}
	o := &c.Controller
	if o.Records, err = OpenRecords(c.RuntimeDirectory); err != nil {
		return nil, err
	}
	if err := checkNamespace(o.Plan.Mode, c.MountNamespace, new(node.Node)); err != nil {
		return nil, err
	}
	o.Node, o.Client, o.Host, o.RetryRate = p.Node, NewClient(client), newHost(p.Log), client.RetryRate()
	o.Status, o.Synced, o.Idle, o.Log = p.Notifier.Status, p.Notifier.Ready, p.ReturnMemory, p.Log
	o.Records.KeepHistory(o.History)
	p.Started(eventStarted, "api_server", client.Address(), "account", client.Account())
	controller := NewController(*o)
	controller.state = newDaemonState(o.Node, node.ProcessStart(os.Getpid()))
	return &service{controller}, nil
}

// Verify returns nil, because the table of settings contains all checks.
func (c *Configuration) Verify() error { return nil }

// service is the controller together with its watch.
type service struct{ *Controller }

func (s *service) Run(ctx context.Context) error {
	s.saveState()
	follow := make(chan error, 1)
	go func() { follow <- s.Follow(ctx) }()
	err := errors.Join(s.Controller.Run(ctx), <-follow)
	now := time.Now()
	s.state.Stopped = &now
	s.saveState()
	return err
}

func (s *service) Reload(fresh daemon.Configuration) {
	o := &fresh.(*Configuration).Controller
	s.SetLimits(o.Limits)
	s.SetShutdownTimeout(o.ShutdownTimeout)
}

// TokenChanged implements daemon.TokenObserver.
func (s *service) TokenChanged(token kube.TokenState) { s.tokenChanged(token) }

func (s *service) Left() string { return s.Running() }

// describeStatus adds the mounts, the paths of the records and the state of the API
// server to the status for programs. It also works while the daemon is down.
func describeStatus(settings daemon.Configuration, err error, status *systemd.Status) {
	if status.Service.Active {
		status.API = apiOf(status.Service.Status)
	}
	status.Mounts = new(systemd.MountStatus)
	if err != nil {
		status.Mounts.Error = "settings: " + err.Error()
		return
	}
	dir := settings.(*Configuration).RuntimeDirectory
	status.Token = ReadToken(dir)
	status.Paths["runtime_directory"], status.Paths["records"] = dir, RecordsDirectory(dir)
	mounted, err := countMounted(dir, new(node.Node))
	if err != nil {
		status.Mounts.Error = err.Error()
	}
	status.Mounts.Count, status.Mounts.Unreadable = mounted.Objects, mounted.Unreadable
}

// checkNamespace returns an error if mounts of this process are not visible to the host:
// every mount would succeed, and every job would find an empty directory. Many sandbox
// settings of a unit (Protect…=, Private…=, ReadOnly…=) silently give the service a
// separate mount namespace. It also returns an error if it cannot determine this, because
// settings that hide process 1 create a mount namespace, too.
func checkNamespace(mode, allowed string, n *node.Node) error {
	if mode != "real" || allowed == "any" {
		return nil
	}
	const way = `; in a container that propagates its mounts to the host, set daemon.mount_namespace = "any"`
	same, detail, err := n.InHostMountNamespace()
	switch {
	case err != nil:
		return &daemon.Refusal{Event: eventNamespace, Text: "cannot determine whether mounts made here are visible to the host", Hint: err.Error() + "; look for ProtectProc= in the unit and its drop-ins, or hidepid= of /proc" + way}
	case !same:
		return &daemon.Refusal{Event: eventNamespace, Text: "mounts made here are not visible to the host: the daemon runs in a separate mount namespace", Hint: detail + "; look for Protect…=, Private…=, ReadOnly…= or MountFlags= in the unit and its drop-ins" + way}
	}
	return nil
}

// Table returns the settings, in the order of the configuration file.
func (c *Configuration) Table() *config.Table {
	return c.Settings.Table(config.Table{
		Program: "clientmountd",
		Summary: "clientmountd reconciles the ClientMounts of this compute node: it activates storage, mounts and unmounts file systems, and reports the result.",
		Sections: []config.Section{
			{Name: "node", Help: "This compute node."},
			{Name: "mount", Help: "How the daemon mounts, checks and unmounts."},
			{Name: "daemon", Help: "The daemon process."},
			{Name: "metrics", Help: "Metrics for Prometheus."},
		},
		Settings: c.settings(),
		Notices: []config.Notice{{
			Name: "RABBIT_NODE", Text: "ignored, because clientmountd is for compute nodes and never runs the commands for rabbit nodes; unset it",
		}},
	}, daemon.Defaults{
		TokenEnv: "DWS_CLIENT_MOUNT_SERVICE_TOKEN_FILE", CertEnv: "DWS_CLIENT_MOUNT_SERVICE_CERT_FILE",
		QPS: "20", Burst: "40", MemLimit: "20MiB", Status: "service, mounts and paths",
	})
}

func (c *Configuration) settings() []config.Setting {
	o := &c.Controller
	wait := []config.Env{{Name: "NNF_MAPPER_WAIT_TIMEOUT", Convert: waitSeconds, Lenient: true}}
	return []config.Setting{
		{
			Key: "mount.command_timeout", Flag: "command-timeout", Env: []config.Env{{Name: "NNF_COMMAND_TIMEOUT_SECONDS", Convert: wholeSeconds}},
			Kind: config.Duration, Default: "2m", Min: "1s", Max: "24h", Reload: true, Field: &o.Limits.Command,
			Help: "How long one command (mount, lvchange, ...) may run before the daemon kills its whole process group. The value in the environment is in whole seconds.",
		}, {
			Key: "mount.hook_timeout", Flag: "hook-timeout",
			Kind: config.Duration, Default: "10m", Min: "1s", Max: "24h", Reload: true, Field: &o.Limits.Hook,
			Help: "How long one hook may run. Hooks are commands that a storage profile runs before and after mounting and unmounting.",
		}, {
			Key: "mount.vg_wait", Env: wait, Kind: config.Duration, Default: "1s", Min: "0s", Max: "1h", Reload: true, Field: &o.Limits.VGWait,
			Help: "How long to wait for a volume group to appear. The value in the environment is in whole seconds.",
		}, {
			Key: "mount.device_wait", Env: wait, Kind: config.Duration, Default: "10s", Min: "0s", Max: "1h", Reload: true, Field: &o.Limits.DeviceWait,
			Help: "How long to wait for the device node of an activated volume, and for NVMe namespaces after a rescan. The value in the environment is in whole seconds.",
		}, {
			Key: "mount.device_retries", Kind: config.Int, Default: "8", Min: "0", Max: "1000", Reload: true, Field: &o.Limits.DeviceRetries,
			Help: "How often to rescan the NVMe controllers and repeat a failed activation quickly, with delays of at most one second. After that, or if NVMe namespaces are missing after mount.device_wait, the daemon reports the failure and retries more slowly.",
		}, {
			Key: "mount.retry_max", Kind: config.Duration, Default: "30s", Min: "1s", Max: "1h", Reload: true, Field: &o.Limits.RetryMax,
			Help: "Longest delay between two attempts to mount or unmount. If very many ClientMounts fail, the delay is longer: five times their number, divided by kubernetes.qps, in seconds.",
		}, {
			Key: "mount.orphans", Flag: "orphans", Kind: config.Enum, Default: "report", Values: []string{"report", "unmount"}, Field: &o.Orphans,
			Help: "What to do with a mount of this daemon whose ClientMount no longer exists. report: log it and leave it in place, because a job may still use it. unmount: unmount it immediately.",
		}, {
			Key: "mount.busy", Kind: config.Enum, Default: string(BusyReport), Values: []string{string(BusyReport), string(BusyTerminate), string(BusyKill)},
			Reload: true, Field: &o.Limits.Busy.Policy,
			Help: "What to do with processes of ordinary users that keep a mount busy when it is to be unmounted. report: name them in the error and in the log. terminate: also send SIGTERM to each of them, once, when the unmount has failed for mount.busy_grace. kill: also send SIGKILL to those that still use the mount after another mount.busy_grace, at least 5s. Processes of root and of system users never get a signal.",
		}, {
			Key: "mount.busy_grace", Kind: config.Duration, Default: "30s", Min: "0s", Max: "24h", Reload: true, Field: &o.Limits.Busy.Grace,
			Help: "How long a mount may stay busy before mount.busy takes effect, counted from the first attempt to unmount it, and how long processes may take to exit after SIGTERM.",
		}, {
			Key: "mount.busy_min_uid", Kind: config.Int, Default: "0", Min: "0", Max: "4294967293", Reload: true, Field: &o.Limits.Busy.MinUID,
			Help: "Lowest user ID of ordinary users, for mount.busy. 0: UID_MIN of /etc/login.defs, or 1000 if that file has none. If the file cannot be read or UID_MIN is invalid, no process gets a signal.",
		}, {
			Key: "mount.roots", Kind: config.Strings, Default: safepath.DefaultMountRoots, Check: mountRoots, Field: &o.Plan.Roots,
			Help: "Directories below which mounts are allowed; a ClientMount with another path is refused. If the storage profiles of your site set $MOUNT_PATH elsewhere, list those directories here. At least one directory is required, and system directories are not allowed.",
		}, {
			Key: "mount.options", Kind: config.Strings, Default: safepath.DefaultMountOptions, Check: mountOptions, Field: &o.Plan.MountOptions,
			Help: "Mount options for every file system. They come before those of the storage profile, so an option of the profile such as suid overrides them. They do not apply to raw block devices. Empty: no options.",
		}, {
			Key: "mount.verify_interval", Kind: config.Duration, Default: "10h", Min: "0s", Max: "8760h", Check: neverOrMinute, Reload: true, Field: &o.Limits.Verify,
			Help: `How often to check that everything that should be mounted is still mounted: at least 1m. "0s": never.`,
		}, {
			Key: "mount.servers_file", Kind: config.Bool, Default: "false", Field: &o.Plan.ServersFile,
			Help: "Write .nnf-servers.json to the root directory of Lustre file systems.",
		}, {
			Key: "mount.mode", Flag: "mode",
			Env:  []config.Env{{Name: "NNF_TEST_ENVIRONMENT", Convert: always("mock"), Presence: true}, {Name: "ENVIRONMENT", Convert: onlyKind}},
			Kind: config.Enum, Default: "real", Values: []string{"real", "kind", "mock"}, Switches: []config.Switch{{Flag: "mock", Value: "mock"}}, Field: &o.Plan.Mode,
			Help: "For tests only. kind: create a symbolic link instead of a mount. mock: only log. In the environment, ENVIRONMENT=kind selects kind, and the presence of NNF_TEST_ENVIRONMENT selects mock.",
		}, {
			Key: "mount.mock_path", Env: []config.Env{{Name: "MOCK_FILE_SYSTEM_PATH"}}, Kind: config.String, Field: &o.Plan.MockPath,
			Help: "For tests only: the directory that replaces the storage in mode kind. Empty: /mnt/nnf.",
		}, {
			Key: "daemon.runtime_directory", Flag: "runtime-directory", Env: []config.Env{{Name: "RUNTIME_DIRECTORY", Convert: config.FirstOfList}},
			Kind: config.String, Default: "/run/clientmountd", Unit: "DIR", Check: config.AbsolutePath, Field: &c.RuntimeDirectory,
			Help: "Directory for the record of each mount. It must survive a restart of the daemon, but not a reboot.",
		}, c.StateSetting("clientmountd"), {
			Key: "daemon.history_count", Kind: config.Int, Default: "200", Min: "0", Max: "100000", Field: &o.History.Lives,
			Help: "Number of ClientMounts whose timeline the daemon keeps after their end, in the runtime directory, for clientmountd timeline. 0: none.",
		}, {
			Key: "daemon.history_bytes", Kind: config.Int, Default: "1048576", Min: "0", Max: "67108864", Field: &o.History.Bytes,
			Help: "Size limit of these timelines, in bytes. The runtime directory is in memory. 0: none.",
		}, {
			Key: "daemon.shutdown_timeout", Flag: "shutdown-timeout",
			Kind: config.Duration, Default: "1m", Min: "0s", Max: "1h", Reload: true, Field: &o.ShutdownTimeout,
			Help: "How long a running step may take to finish when the daemon stops. Stopping does not affect mounts.",
		}, {
			Key: "daemon.mount_namespace", Flag: "mount-namespace", Kind: config.Enum, Default: "host", Values: []string{"host", "any"}, Field: &c.MountNamespace,
			Help: "Mount namespace in which the daemon may run. host: only that of process 1, because no job would see mounts in another one. any: every namespace, for containers that propagate their mounts to the host.",
		}, {
			Key: "metrics.textfile", Kind: config.String, Unit: "FILE", Check: metricsFile, Field: &o.MetricsFile,
			Help: "File with metrics for the textfile collector of node_exporter, which clientmountd replaces when a metric has changed. Its directory must exist, and its name must end in .prom. Empty: no file.",
		},
	}
}

// Conversions of environment variables that earlier daemons defined, and checks of
// single values.

// wholeSeconds converts NNF_COMMAND_TIMEOUT_SECONDS, an integer. In earlier daemons a
// value of zero or less meant "no limit". This daemon always has a limit, so it ignores
// the value with a warning. Any other text is an error at start.
func wholeSeconds(value string) (string, bool, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return "", false, fmt.Errorf("%s is not a number of seconds, accepted: a whole number above 0", text.Quote(value))
	}
	if n <= 0 {
		return "", false, config.Harmless(fmt.Errorf("%d no longer means \"no limit\", accepted: a whole number of seconds above 0", n))
	}
	return value + "s", true, nil
}

// waitSeconds converts NNF_MAPPER_WAIT_TIMEOUT, a number of seconds above 0. Any other
// value is ignored with a warning.
func waitSeconds(value string) (string, bool, error) {
	if n, err := strconv.ParseInt(value, 10, 32); err != nil || n <= 0 {
		return "", false, fmt.Errorf("%s is not a number of seconds above 0", text.Quote(value))
	}
	return value + "s", true, nil
}

// always returns a conversion for variables whose presence alone sets the value.
func always(value string) func(string) (string, bool, error) {
	return func(string) (string, bool, error) { return value, true, nil }
}

// onlyKind converts ENVIRONMENT, which other programs use as well: only the value "kind"
// has a meaning here.
func onlyKind(value string) (string, bool, error) { return value, value == "kind", nil }

func mountRoots(value any) error   { return safepath.CheckMountRoots(value.([]string)) }
func mountOptions(value any) error { return safepath.CheckMountOptions(value.([]string)) }

func metricsFile(value any) error {
	if value.(string) == "" {
		return nil
	}
	if err := config.AbsolutePath(value); err != nil {
		return err
	}
	return checkMetricsFile(value.(string))
}

func neverOrMinute(value any) error {
	if d := value.(time.Duration); d > 0 && d < time.Minute {
		return errors.New(d.String() + ` is out of range, accepted: "0s" (never) or at least 1m`)
	}
	return nil
}
