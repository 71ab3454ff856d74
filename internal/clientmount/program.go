package clientmount

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
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
	Controller       Options // the fields that settings are for; Start sets the others
	RuntimeDirectory string  // of the records
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
	o.Node, o.Client, o.Host, o.RetryRate = p.Node, server{client}, newHost(p.Log), client.RetryRate()
	o.Status, o.Synced, o.Idle, o.Log = p.Notifier.Status, p.Notifier.Ready, p.ReturnMemory, p.Log
	p.Started(eventStarted, "api_server", client.Address(), "account", client.Account())
	return &service{newController(*o)}, nil
}

// Verify returns nil: the table of settings has all rules.
func (c *Configuration) Verify() error { return nil }

// service is the controller together with its watch.
type service struct{ *Controller }

func (s *service) Run(ctx context.Context) error {
	follow := make(chan error, 1)
	go func() { follow <- s.Follow(ctx) }()
	return errors.Join(s.Controller.Run(ctx), <-follow)
}

func (s *service) Reload(fresh daemon.Configuration) {
	o := &fresh.(*Configuration).Controller
	s.SetLimits(o.Limits)
	s.SetShutdownTimeout(o.ShutdownTimeout)
}

func (s *service) Left() string { return s.Running() }

// describeStatus tells programs where the records are that the daemon uses, and what
// they and the daemon report. It works while the daemon is down.
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
	status.Paths["runtime_directory"], status.Paths["records"] = dir, RecordsDirectory(dir)
	mounted, err := countMounted(dir, new(node.Node))
	if err != nil {
		status.Mounts.Error = err.Error()
	}
	status.Mounts.Count, status.Mounts.Unreadable = mounted.Objects, mounted.Unreadable
}

// checkNamespace refuses to start where the host would not see the mounts of this
// process: every mount would succeed, and every job would find an empty directory.
// Many sandbox settings of a unit (Protect…=, Private…=, ReadOnly…=) give the service a
// mount namespace of its own without a message. It also refuses if it cannot find out,
// because settings that hide process 1 make a mount namespace, too.
func checkNamespace(mode, allowed string, n *node.Node) error {
	if mode != "real" || allowed == "any" {
		return nil
	}
	const way = `; a container that passes its mounts on to the host needs daemon.mount_namespace = "any"`
	same, detail, err := n.InHostMountNamespace()
	switch {
	case err != nil:
		return &daemon.Refusal{Event: eventNamespace, Text: "it is not known whether the host would see the mounts made here", Hint: err.Error() + "; look for ProtectProc= in the unit and its drop-ins, or hidepid= of /proc" + way}
	case !same:
		return &daemon.Refusal{Event: eventNamespace, Text: "the host would not see the mounts made here: this is a mount namespace of its own", Hint: detail + "; look for Protect…=, Private…=, ReadOnly…= or MountFlags= in the unit and its drop-ins" + way}
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
		},
		Settings: c.settings(),
		Notices: []config.Notice{{
			Name: "RABBIT_NODE", Text: "this is the daemon of a compute node; it never runs the commands for Rabbit nodes, whatever this says; unset it",
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
			Help: "The same for the commands that a storage profile runs before and after mounting.",
		}, {
			Key: "mount.vg_wait", Env: wait, Kind: config.Duration, Default: "1s", Min: "0s", Max: "1h", Reload: true, Field: &o.Limits.VGWait,
			Help: "How long to wait for a volume group to appear. The value in the environment is in whole seconds.",
		}, {
			Key: "mount.device_wait", Env: wait, Kind: config.Duration, Default: "10s", Min: "0s", Max: "1h", Reload: true, Field: &o.Limits.DeviceWait,
			Help: "How long to wait for the device node of an activated volume. The value in the environment is in whole seconds.",
		}, {
			Key: "mount.device_retries", Kind: config.Int, Default: "8", Min: "0", Max: "1000", Reload: true, Field: &o.Limits.DeviceRetries,
			Help: "How often to retry quickly, once per second, while the storage has not appeared. After that, the daemon reports the failure and retries more slowly.",
		}, {
			Key: "mount.retry_max", Kind: config.Duration, Default: "30s", Min: "1s", Max: "1h", Reload: true, Field: &o.Limits.RetryMax,
			Help: "Longest delay between two retries of a mount that fails. With very many failing ClientMounts the delay is longer: five times their number, divided by kubernetes.qps, in seconds.",
		}, {
			Key: "mount.orphans", Flag: "orphans", Kind: config.Enum, Default: "report", Values: []string{"report", "unmount"}, Field: &o.Orphans,
			Help: "What to do with a mount of this daemon whose ClientMount no longer exists.",
		}, {
			Key: "mount.roots", Kind: config.Strings, Default: safepath.DefaultMountRoots, Check: mountRoots, Field: &o.Plan.Roots,
			Help: "Directories below which mounts are allowed; a ClientMount with another path is refused. If the storage profiles of your site set $MOUNT_PATH elsewhere, list those directories here. At least one directory is required, and system directories are not allowed.",
		}, {
			Key: "mount.options", Kind: config.Strings, Default: safepath.DefaultMountOptions, Check: mountOptions, Field: &o.Plan.MountOptions,
			Help: "Mount options for every file system. They come before those of the storage profile, so an option of the profile such as suid overrides them. They do not apply to raw block devices. Empty: no options.",
		}, {
			Key: "mount.verify_interval", Kind: config.Duration, Default: "10h", Min: "0s", Max: "8760h", Check: neverOrMinute, Reload: true, Field: &o.Limits.Verify,
			Help: `How often to check that everything that should be mounted still is. "0s": never.`,
		}, {
			Key: "mount.servers_file", Kind: config.Bool, Default: "false", Field: &o.Plan.ServersFile,
			Help: "Write .nnf-servers.json to the root directory of Lustre file systems.",
		}, {
			Key: "mount.mode", Flag: "mode",
			Env:  []config.Env{{Name: "NNF_TEST_ENVIRONMENT", Convert: always("mock"), Presence: true}, {Name: "ENVIRONMENT", Convert: onlyKind}},
			Kind: config.Enum, Default: "real", Values: []string{"real", "kind", "mock"}, Switches: []config.Switch{{Flag: "mock", Value: "mock"}}, Field: &o.Plan.Mode,
			Help: "For tests only. kind: make a symbolic link instead of a mount. mock: only log. In the environment, ENVIRONMENT=kind selects kind, and the presence of NNF_TEST_ENVIRONMENT selects mock.",
		}, {
			Key: "mount.mock_path", Env: []config.Env{{Name: "MOCK_FILE_SYSTEM_PATH"}}, Kind: config.String, Field: &o.Plan.MockPath,
			Help: "For tests only: the directory that replaces the storage in modes kind and mock.",
		}, {
			Key: "daemon.runtime_directory", Flag: "runtime-directory", Env: []config.Env{{Name: "RUNTIME_DIRECTORY", Convert: firstOfList}},
			Kind: config.String, Default: "/run/clientmountd", Unit: "DIR", Check: config.AbsolutePath, Field: &c.RuntimeDirectory,
			Help: "Directory for the record of each mount. It must survive a restart of the daemon, but not a reboot.",
		}, {
			Key: "daemon.shutdown_timeout", Flag: "shutdown-timeout",
			Kind: config.Duration, Default: "60s", Min: "0s", Max: "1h", Reload: true, Field: &o.ShutdownTimeout,
			Help: "How long a running step may take to finish after the daemon was told to stop. Stopping does not affect mounts.",
		}, {
			Key: "daemon.mount_namespace", Flag: "mount-namespace", Kind: config.Enum, Default: "host", Values: []string{"host", "any"}, Field: &c.MountNamespace,
			Help: "Mount namespace in which the daemon may run. host: only that of process 1, because no job would see mounts in another one. any: every namespace, for containers that propagate their mounts to the host.",
		},
	}
}

// The meaning of the environment names, which earlier daemons defined, and the
// checks of single values.

// wholeSeconds reads NNF_COMMAND_TIMEOUT_SECONDS: an integer. Zero and less meant
// "no limit" in earlier daemons. This daemon always has a limit, so it ignores such a
// value with a warning. Other text is an error at the start.
func wholeSeconds(value string) (string, bool, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return "", false, fmt.Errorf("%s is not a number of seconds, accepted: a whole number above 0", text.Quote(value))
	}
	if n <= 0 {
		return "", false, config.Harmless(fmt.Errorf("%d, once \"no limit\", is not a limit, accepted: a whole number of seconds above 0", n))
	}
	return value + "s", true, nil
}

// waitSeconds reads NNF_MAPPER_WAIT_TIMEOUT: seconds above 0. Anything else is
// ignored, with a warning.
func waitSeconds(value string) (string, bool, error) {
	if n, err := strconv.ParseInt(value, 10, 32); err != nil || n <= 0 {
		return "", false, fmt.Errorf("%s is not a number of seconds above 0", text.Quote(value))
	}
	return value + "s", true, nil
}

// always is for names whose presence alone sets the value.
func always(value string) func(string) (string, bool, error) {
	return func(string) (string, bool, error) { return value, true, nil }
}

// onlyKind reads ENVIRONMENT, which other programs use as well: only the value "kind"
// has a meaning here.
func onlyKind(value string) (string, bool, error) { return value, value == "kind", nil }

// firstOfList reads RUNTIME_DIRECTORY, which systemd fills with a list separated
// by colons when a unit has several.
func firstOfList(value string) (string, bool, error) {
	first, _, _ := strings.Cut(value, ":")
	return first, first != "", nil
}

func mountRoots(value any) error   { return safepath.CheckMountRoots(value.([]string)) }
func mountOptions(value any) error { return safepath.CheckMountOptions(value.([]string)) }

func neverOrMinute(value any) error {
	if d := value.(time.Duration); d > 0 && d < time.Minute {
		return errors.New(d.String() + ` is out of range, accepted: "0s" (never) or at least 1m`)
	}
	return nil
}
