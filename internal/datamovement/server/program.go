package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// Program returns the program nnf-dm.
func Program() *daemon.Program {
	const name = "nnf-dm"
	return &daemon.Program{
		Name:          name,
		Configuration: func() daemon.Configuration { return new(Configuration) },
		ConfigRefused: EventConfigRefused,
		Service: systemd.Service{
			Description: "Near-Node Flash (NNF) Data Movement Service", User: name,
			Units: []systemd.Unit{
				{Name: "nnf-dm.service", Text: units.NnfdmService},
				{Name: "nnf-dm.socket", Text: units.NnfdmSocket},
			},
		},
		Describe: describe,
	}
}

// describe adds the path of the socket and the token to the status of the daemon.
func describe(settings daemon.Configuration, err error, status *systemd.Status) {
	if err != nil {
		return
	}
	c := settings.(*Configuration)
	status.Paths["socket"] = c.Socket.Path
	if status.Token, err = c.tokenRecord("").Read(time.Now()); err != nil {
		status.Token = &mountstate.Token{Condition: mountstate.TokenUnknown, Error: err.Error()}
	}
}

// tokenRecord returns where the daemon records the state of its token, because it runs only while it
// is needed.
func (c *Configuration) tokenRecord(node string) *daemon.TokenRecord {
	return &daemon.TokenRecord{Program: "nnf-dm", Node: node, Directory: c.StateDir, TokenFile: c.Kubernetes.TokenFile}
}

// Configuration has the settings of nnf-dm. The settings fill some fields of Service,
// Socket and Transport; Start fills the others.
type Configuration struct {
	daemon.Settings
	Service           Options
	Socket            unixsocket.Options
	Transport         Transport
	Connections       unixsocket.LimiterOptions
	ConnectionReserve int // percent of Connections.Total
	Choices           struct {
		Mode        datamovement.OptionMode
		DCP, MPIRun []string // additional options that users may pass
	}
	LogRecords struct {
		PerSecond float64
		Burst     int
	}
	Simulated       bool
	IdleTimeout     time.Duration
	ShutdownTimeout time.Duration
}

// Verify returns an error if the settings allow an invalid option of dcp or mpirun.
func (c *Configuration) Verify() error {
	_, err := c.ServiceSettings()
	return err
}

// ServiceSettings returns the settings of the service, including the fields that depend
// on more than one setting.
func (c *Configuration) ServiceSettings() (Settings, error) {
	choices, err := datamovement.NewOptions(c.Choices.Mode, c.Choices.DCP, c.Choices.MPIRun)
	if err != nil {
		return Settings{}, fmt.Errorf("section [options]: %w", err)
	}
	s := c.Service.Settings
	s.Choices = choices
	s.Limits.API.QPS, s.Limits.API.Burst = int(c.Kubernetes.QPS), c.Kubernetes.Burst
	return s, nil
}

func (c *Configuration) connections() unixsocket.LimiterOptions {
	o := c.Connections
	o.What, o.Reserve = "connections", o.Total*c.ConnectionReserve/100
	return o
}

// process is nnf-dm, built from its settings.
type process struct {
	p           *daemon.Process
	service     *Service // nil when simulated
	listener    *unixsocket.Listener
	records     *unixsocket.Records
	connections *unixsocket.Limiter
	idle        *unixsocket.Idle // for the idle exit
	quiet       *unixsocket.Idle // for returning memory to the kernel
	transport   Transport
	started     func() // logs that the daemon has started
	token       *daemon.TokenRecord
	shutdown    atomic.Int64

	mu          sync.Mutex // for a reload while the daemon starts to serve
	serving     bool
	idleTimeout time.Duration
}

// quietAfter is the time without requests and followed transfers after which the daemon
// returns memory to the kernel. It is longer than the pause between the polls of a
// client. Open connections do not count as activity.
const quietAfter = 5 * time.Second

// overLimit is how many connections above the limit a user gets, so that the server can
// respond with the reason of the refusal.
const overLimit = 2

// Start opens the socket and builds the service.
func (c *Configuration) Start(p *daemon.Process) (daemon.Service, error) {
	quit := make(chan struct{}, 1)
	d := &process{p: p, quiet: unixsocket.NewIdle(quietAfter, p.ReturnMemory), token: c.tokenRecord(p.Node)}
	d.idle = unixsocket.NewIdle(0, func() {
		select {
		case quit <- struct{}{}:
		default:
		}
	})
	d.idle.Also(d.quiet)
	d.adopt(c)
	d.records = NewRecords(p.Log, c.LogRecords.PerSecond, c.LogRecords.Burst)
	address := "simulated"
	if !c.Simulated {
		client, err := p.Dial("nnf data movement service")
		if err != nil {
			return nil, err
		}
		o := c.Service
		if o.Settings, err = c.ServiceSettings(); err != nil {
			return nil, err
		}
		o.Node, o.Client, o.Idle, o.Records, o.Status, o.Log = p.Node, Cluster{Client: client}, d.idle, d.records, d.status, p.Log
		d.service, address = New(o), client.Address()
	}
	d.connections = unixsocket.NewLimiter(c.connections())
	o := c.Socket
	o.Limiter, o.OverLimit, o.Handshake, o.HandshakeBytes = d.connections, overLimit, c.Transport.Handshake, preface
	o.Idle, o.Records, o.Log = d.idle, d.records, p.Log
	var err error
	if d.listener, err = unixsocket.Listen(o); err != nil {
		return nil, err
	}
	d.transport = c.Transport
	d.transport.Listener, d.transport.Check, d.transport.Records = d.listener, NewSelfCheck(d.listener), d.records
	d.transport.Shutdown, d.transport.Idle, d.transport.Quit, d.transport.Log = d.ShutdownTimeout, d.idle, quit, p.Log
	d.started = func() {
		p.Started(EventStarted, "api_server", address, "socket", d.listener.Addr().String(), "activated", d.listener.Activated())
	}
	return d, nil
}

func (d *process) Run(ctx context.Context) error {
	defer d.records.Close()
	defer d.quiet.Stop()
	defer d.idle.Stop()
	// The socket exists: clients that connect from now on are served.
	d.serve()
	d.started()
	d.p.Notifier.Ready()
	if d.service == nil {
		d.status("simulated: nothing is copied")
		return ServeSimulated(ctx, d.transport)
	}
	d.status("waiting for requests")
	return Serve(ctx, d.service, d.transport)
}

// serve starts the idle timer, which does not include the start of the daemon.
func (d *process) serve() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serving = true
	d.idle.Set(d.idleTimeout)
}

func (d *process) Probe(ctx context.Context) error {
	if d.service != nil {
		if err := d.service.Probe(ctx); err != nil {
			return err
		}
	}
	return d.transport.Check.Probe(ctx)
}

// TokenChanged implements daemon.TokenObserver. It writes a file in the directory where KeepToken
// stores the token.
func (d *process) TokenChanged(s kube.TokenState) {
	if err := d.token.Record(s); err != nil {
		d.p.Log.Debug("cannot record the state of the token for reports", "error", err)
	}
}

// status sets the status line that systemctl status shows.
func (d *process) status(text string) {
	d.p.Notifier.Status(d.listener.Addr().String() + ": " + text)
}

func (d *process) Reload(fresh daemon.Configuration) {
	c := fresh.(*Configuration)
	d.adopt(c)
	d.connections.Set(c.connections())
	d.records.Set(c.LogRecords.PerSecond, c.LogRecords.Burst)
	if settings, err := c.ServiceSettings(); err == nil && d.service != nil {
		d.service.SetSettings(settings)
	}
}

func (d *process) adopt(c *Configuration) {
	d.shutdown.Store(int64(c.ShutdownTimeout))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idleTimeout = c.IdleTimeout; d.serving {
		d.idle.Set(d.idleTimeout)
	}
}

func (d *process) ShutdownTimeout() time.Duration { return time.Duration(d.shutdown.Load()) }

func (d *process) Left() string { return fmt.Sprintf("%d connections", d.listener.Open()) }

// Table returns the settings, in the order of the configuration file.
func (c *Configuration) Table() *config.Table {
	return c.Settings.Table(config.Table{
		Program: "nnf-dm",
		Summary: "nnf-dm serves the Copy Offload API to the jobs on this compute node: it creates, follows, cancels and deletes data movements, which the rabbit executes.",
		Sections: []config.Section{
			{Name: "node", Help: "This compute node and its rabbit."},
			{Name: "socket", Help: "The socket of the Copy Offload API. With socket activation, the daemon uses the socket of the service manager instead."},
			{Name: "access", Help: "Who may do what. The daemon identifies callers by kernel peer credentials (SO_PEERCRED)."},
			{Name: "options", Help: "Options that users may pass to dcp and mpirun, which run on the rabbit."},
			{Name: "limits", Help: "Limits that protect users from each other. A request above a limit fails with RESOURCE_EXHAUSTED; other users are not affected."},
			{Name: "daemon", Help: "The daemon process."},
		},
		Settings: slices.Concat(c.socketAndAccess(), c.limits(), c.life()),
	}, daemon.Defaults{
		TokenEnv: "NNF_DATA_MOVEMENT_SERVICE_TOKEN_FILE", CertEnv: "NNF_DATA_MOVEMENT_SERVICE_CERT_FILE", QPS: "50", Burst: "100",
		// Each connection takes 20 KiB of memory. With a limit below the sum, the garbage
		// collector would run continuously.
		MemLimit: "128MiB", Status: "service, units and paths",
	})
}

func (c *Configuration) socketAndAccess() []config.Setting {
	const names = " An entry is the name of an option, followed by = if the option takes a value, for example "
	s := &c.Service.Settings
	return []config.Setting{
		{
			Key: "node.nnf_node_name", Flag: "nnf-node-name", Env: []config.Env{{Name: "NNF_NODE_NAME"}},
			Kind: config.String, Unit: "NAME", Check: config.NamespaceName, Field: &c.Service.Rabbit,
			Help: "Name of the rabbit that serves this compute node, which is also its namespace. Empty: the daemon looks it up in the SystemConfiguration when it first needs it.",
		}, {
			Key: "node.sys_config", Flag: "sys-config", Kind: config.String, Default: "default", Unit: "NAME", Field: &c.Service.SystemConfiguration,
			Help: "Name of the SystemConfiguration in namespace default, which lists the compute nodes of each rabbit.",
		}, {
			Key: "socket.path", Flag: "socket", Kind: config.String, Default: v1.Socket, Unit: "PATH", Check: config.AbsolutePath, Field: &c.Socket.Path,
			Help: "Path of the socket.",
		}, {
			Key: "socket.mode", Kind: config.String, Default: "0666", Check: checkPermissions, Field: (*permissions)(&c.Socket.Mode),
			Help: "Permissions of the socket. They decide who can connect; what a caller may do depends on its identity.",
		}, {
			Key: "socket.group", Kind: config.String, Field: &c.Socket.Group,
			Help: "Group of the socket, by name or number. Empty: the group of the process.",
		}, {
			Key: "access.root_may_all", Kind: config.Bool, Default: "true", Reload: true, Field: &s.Policy.RootMayAll,
			Help: "Allow root to act for any workflow. Copies still run with the user and group of the workflow.",
		}, {
			Key: "access.allow_root_copies", Kind: config.Bool, Default: "false", Reload: true, Field: &s.Policy.AllowRootCopies,
			Help: "Allow workflows of user 0 or group 0. Their copies run as root, or with the group root, on the rabbit.",
		}, {
			Key: "access.list_workflow", Kind: config.Bool, Default: "false", Reload: true, Field: &s.Policy.ListWorkflow,
			Help: "List all data movements of a workflow, including those that other compute nodes have started.",
		}, {
			Key: "options.policy", Kind: config.Enum, Default: "list", Values: []string{"list", "none", "any"}, Reload: true, Field: &c.Choices.Mode,
			Help: "Which dcp and mpirun options users may give. list: those that are known to be harmless, and those in options.dcp and options.mpirun. none: no options. any: every option. Some options of mpirun run programs, so with any, every user who may copy can run commands as root on the rabbit. Characters with a meaning for the shell are always refused.",
		}, {
			Key: "options.dcp", Kind: config.Strings, Reload: true, Field: &c.Choices.DCP,
			Help: "Additional options of dcp that users may give." + names + "\"--chunksize=\".",
		}, {
			Key: "options.mpirun", Kind: config.Strings, Reload: true, Field: &c.Choices.MPIRun,
			Help: "Additional options of mpirun that users may give." + names + "\"--cpus-per-rank=\".",
		}, {
			Key: "options.lookup_expiry", Kind: config.Duration, Default: "1m", Min: "0s", Max: "1h", Reload: true, Field: &s.LookupExpiry,
			Help: "How long the daemon caches the list of global file systems, the default profile and the system configuration.",
		},
	}
}

func (c *Configuration) limits() []config.Setting {
	number := func(key, value, least, most, help string, field any) config.Setting {
		return config.Setting{Key: "limits." + key, Kind: config.Int, Default: value, Min: least, Max: most, Reload: true, Field: field, Help: help}
	}
	s := &c.Service.Settings
	l := &s.Limits
	return []config.Setting{
		number("connections", "4096", "8", "65536", "Maximum number of concurrent connections of all users.", &c.Connections.Total),
		number("connections_per_user", "1024", "1", "65536", "Maximum number of concurrent connections of one user.", &c.Connections.User.Slots),
		number("connection_reserve", "10", "0", "50", "Percentage of limits.connections that is reserved for users without a connection. When all other connections are in use and a user with fewer connections connects, the daemon closes the longest-idle connection of the user with the most connections.", &c.ConnectionReserve),
		number("streams_per_user", "2048", "1", "65536", "Maximum number of concurrent requests of one user.", &l.Streams),
		number("waiters_per_user", "1024", "1", "65536", "Maximum number of concurrent requests of one user that wait for the end of a data movement.", &l.Waiters),
		number("creates_per_second", "50", "1", "10000", "Average number of data movements that one user may create per second. A call of nnf-dmctl doctor counts as one.", &l.CreatesPerSecond),
		number("create_burst", "500", "1", "100000", "Number of data movements that one user may create in a burst.", &l.CreateBurst),
		number("movements_per_user", "5000", "1", "1000000", "Maximum number of data movements of one user, including those that have ended and are not deleted.", &l.Movements),
		{
			Key: "limits.movement_bytes_per_user", Kind: config.Size, Default: "16MiB", Min: "64KiB", Max: "1GiB", Reload: true, Field: &l.MovementBytes,
			Help: "Maximum size of all data movements of one user. Each counts 1KiB, plus its paths and options, plus what the rabbit reports about it.",
		},
		number("batch_size", "1000", "1", "10000", "Maximum number of pairs of source and destination in one batch.", &l.BatchSize),
		number("api_share", "90", "1", "100", "Percentage of kubernetes.qps and kubernetes.burst that the requests of one user may take. Users take turns.", &l.API.Percent),
		number("log_records_per_second", "5", "1", "10000", "Average number of log records per second that one user may cause by requests that fail or are refused. One record reports how many were suppressed.", &c.LogRecords.PerSecond),
		number("log_record_burst", "100", "1", "100000", "Number of these log records that one user may cause in a burst.", &c.LogRecords.Burst),
		{
			Key: "limits.message_size", Kind: config.Size, Default: "256KiB", Min: "4KiB", Max: "4MiB", Field: &c.Transport.MaxMessage,
			Help: "Maximum size of one request.",
		}, {
			Key: "limits.memory_per_user", Kind: config.Size, Default: "16MiB", Min: "1MiB", Max: "1GiB", Field: &c.Transport.MaxMemory,
			Help: "Memory for the requests and answers of one user. A running request counts 4KiB plus its size, an answer its size until the client has read it, a data movement that a client follows 192 bytes. Above three quarters of the limit, requests and answers are refused. The daemon disconnects a client that keeps sending above the limit.",
		}, {
			Key: "limits.memory", Kind: config.Size, Default: "64MiB", Min: "1MiB", Max: "16GiB", Field: &c.Transport.TotalMemory,
			Help: "Memory for the requests and answers of all users. When half of it is used, the other half is divided equally among the users.",
		}, {
			Key: "limits.max_wait", Kind: config.Duration, Default: "1h", Min: "1s", Max: "24h", Reload: true, Field: &s.MaxWait,
			Help: "How long one request may wait for the end of a data movement, even if the client sets no limit.",
		}, {
			Key: "limits.handshake_time", Kind: config.Duration, Default: "5s", Min: "100ms", Max: "1m", Field: &c.Transport.Handshake,
			Help: "How long a new connection may take for the HTTP/2 handshake.",
		},
	}
}

func (c *Configuration) life() []config.Setting {
	return []config.Setting{
		{
			Key: "daemon.simulated", Flag: "simulated", Kind: config.Bool, Default: "false", Field: &c.Simulated,
			Help: "For tests of clients only: answer from memory, without Kubernetes and without copying.",
		}, {
			Key: "daemon.idle_timeout", Flag: "idle-timeout", Kind: config.Duration, Default: "5m", Min: "0s", Max: "24h", Reload: true, Field: &c.IdleTimeout,
			Help: `Exit after this time without work, with socket activation only: the next client starts the daemon again. "0s": never.`,
		}, {
			Key: "daemon.shutdown_timeout", Flag: "shutdown-timeout",
			Kind: config.Duration, Default: "10s", Min: "0s", Max: "1h", Reload: true, Field: &c.ShutdownTimeout,
			Help: "How long running requests may take to finish when the daemon stops. Stopping does not affect data movements.",
		}, c.StateSetting("nnf-dm"),
	}
}

// permissions is a fs.FileMode in the syntax of socket.mode.
type permissions fs.FileMode

// UnmarshalText parses octal permissions, which must allow the owner to use the socket.
func (p *permissions) UnmarshalText(data []byte) error {
	n, err := strconv.ParseUint(string(data), 8, 32)
	if err != nil || n > 0o777 || !strings.HasPrefix(string(data), "0") {
		return fmt.Errorf("%s is not a mode, accepted: octal permissions such as 0666 or 0660", text.Quote(string(data)))
	}
	if n&0o600 != 0o600 {
		return errors.New("the owner must be able to read and write the socket")
	}
	*p = permissions(n)
	return nil
}

func checkPermissions(value any) error { return new(permissions).UnmarshalText([]byte(value.(string))) }
