package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// The settings of nnf-dm, in the order of its file.

func rabbitSettings(c *Nnfdm) []Setting {
	return []Setting{
		{
			Key: "node.nnf_node_name", Flag: "nnf-node-name", Env: []Env{{Name: "NNF_NODE_NAME"}},
			Kind: String, Unit: "NAME", Check: namespaceName, Field: &c.Node.Rabbit,
			Help: "Name of the rabbit that serves this compute, which is also its namespace. Empty: looked up in the SystemConfiguration when it is first needed.",
		}, {
			Key: "node.sys_config", Flag: "sys-config", Kind: String, Default: "default", Unit: "NAME", Field: &c.Node.SystemConfiguration,
			Help: "Name of the SystemConfiguration in namespace default that says which rabbit serves which compute.",
		},
	}
}

func socketSettings(c *Nnfdm) []Setting {
	return []Setting{
		{
			Key: "socket.path", Flag: "socket", Kind: String, Default: "/var/run/nnf-dm.sock", Unit: "PATH", Check: absoluteDirectory, Field: &c.Socket.Path,
			Help: "Where the socket is made.",
		}, {
			Key: "socket.mode", Kind: String, Default: "0666", Check: permissions, Field: &c.Socket.Mode,
			Help: "Permissions of the socket. Who may do what is decided by the caller's identity, not by these.",
		}, {
			Key: "socket.group", Kind: String, Field: &c.Socket.Group,
			Help: "Group of the socket, by name or number. Empty: the group of the process.",
		},
	}
}

func accessSettings(c *Nnfdm) []Setting {
	const names = " An entry is an option's name, with = behind it when it takes a value: \"--chunksize=\"."
	return []Setting{
		{
			Key: "access.root_may_all", Kind: Bool, Default: "true", Reload: true, Field: &c.Access.RootMayAll,
			Help: "Let root act for any workflow. Copies are made with the workflow's user and group all the same.",
		}, {
			Key: "access.allow_root_copies", Kind: Bool, Default: "false", Reload: true, Field: &c.Access.AllowRootCopies,
			Help: "Allow workflows of user 0, whose copies run as root on the rabbit.",
		}, {
			Key: "access.list_workflow", Kind: Bool, Default: "false", Reload: true, Field: &c.Access.ListWorkflow,
			Help: "List all movements of a workflow, also those that other computes have started.",
		}, {
			Key: "options.policy", Kind: Enum, Default: "list", Values: []string{"list", "none", "any"}, Reload: true, Field: &c.Options.Policy,
			Help: "Which dcp and mpirun options users may give. list: those that are known to be harmless, and the ones below. none: no options. any: every option, and mpirun has some that run programs, so whoever may copy can then run commands as root on the rabbit. Characters that mean something to a shell are refused always.",
		}, {
			Key: "options.dcp", Kind: Strings, Reload: true, Field: &c.Options.DCP,
			Help: "Further options of dcp that users may give." + names,
		}, {
			Key: "options.mpirun", Kind: Strings, Reload: true, Field: &c.Options.MPIRun,
			Help: "Further options of mpirun that users may give." + names,
		}, {
			Key: "options.lookup_expiry", Kind: Duration, Default: "1m", Min: "0s", Max: "1h", Reload: true, Field: &c.Options.LookupExpiry,
			Help: "How long the list of global file systems, the default profile and the system configuration are remembered between requests.",
		},
	}
}

func limitSettings(c *Nnfdm) []Setting {
	number := func(key, value, least, most, help string, field *int) Setting {
		return Setting{Key: "limits." + key, Kind: Int, Default: value, Min: least, Max: most, Reload: true, Field: field, Help: help}
	}
	l := &c.Limits
	return []Setting{
		number("connections", "4096", "8", "65536", "Connections at once, of all users.", &l.Connections),
		number("connections_per_user", "1024", "1", "65536", "Connections at once, of one user.", &l.ConnectionsPerUser),
		number("connection_reserve", "10", "0", "50", "Percent of limits.connections that only users without a connection may take. When the others are taken, the daemon closes the longest idle connection of the user who has most, if the new caller has fewer.", &l.ConnectionReserve),
		number("streams_per_user", "2048", "1", "65536", "Requests at once, of one user.", &l.StreamsPerUser),
		number("waiters_per_user", "1024", "1", "65536", "Requests that wait for the end of a transfer, of one user.", &l.WaitersPerUser),
		number("creates_per_second", "50", "1", "10000", "Transfers that one user may create per second, on average.", &l.CreatesPerSecond),
		number("create_burst", "500", "1", "100000", "Transfers that one user may create at once.", &l.CreateBurst),
		number("movements_per_user", "5000", "1", "1000000", "Transfers of one user that exist, whether they have ended or not. Users delete those that have ended.", &l.MovementsPerUser),
		{
			Key: "limits.movement_bytes_per_user", Kind: Size, Default: "16MiB", Min: "64KiB", Max: "1GiB", Reload: true, Field: &l.MovementBytesPerUser,
			Help: "Size of the transfers of one user that exist: each counts 1KiB, its paths and options, and what the rabbit reports of it.",
		},
		number("batch_size", "1000", "1", "10000", "Pairs of source and destination in one batch.", &l.BatchSize),
		number("api_share", "90", "1", "100", "Percent of kubernetes.qps and kubernetes.burst that one user's requests may take. Users take turns.", &l.APIShare),
		number("log_records_per_second", "5", "1", "10000", "Log records that one user may cause per second, on average, by requests that are refused or fail. One record gives the number of suppressed ones.", &l.LogRecordsPerSecond),
		number("log_record_burst", "100", "1", "100000", "Such log records that one user may cause at once.", &l.LogRecordBurst),
		{
			Key: "limits.message_size", Kind: Size, Default: "256KiB", Min: "4KiB", Max: "4MiB", Field: &l.MessageSize,
			Help: "Size of one request.",
		}, {
			Key: "limits.memory_per_user", Kind: Size, Default: "16MiB", Min: "1MiB", Max: "1GiB", Field: &l.MemoryPerUser,
			Help: "Memory for the requests and answers of one user. A request under way counts 4KiB and its size, an answer its size until the client has read it, a followed transfer 192 bytes. Above three quarters requests and answers are refused; a client that keeps sending above the limit is disconnected.",
		}, {
			Key: "limits.memory", Kind: Size, Default: "64MiB", Min: "1MiB", Max: "16GiB", Field: &l.Memory,
			Help: "Memory for the requests and answers of all users. Above half of it the other half is divided equally among the users.",
		}, {
			Key: "limits.max_wait", Kind: Duration, Default: "1h", Min: "1s", Max: "24h", Reload: true, Field: &l.MaxWait,
			Help: "How long one request may wait for the end of a transfer, also when it asks for ever.",
		}, {
			Key: "limits.handshake_time", Kind: Duration, Default: "5s", Min: "100ms", Max: "1m", Field: &l.HandshakeTime,
			Help: "How long a new connection may take until it has sent its first request.",
		},
	}
}

func nnfdmProcessSettings(c *Nnfdm) []Setting {
	return []Setting{
		{
			Key: "daemon.simulated", Flag: "simulated", Kind: Bool, Default: "false", Field: &c.Daemon.Simulated,
			Help: "For tests of clients only: answer from memory, with no Kubernetes and no copying.",
		}, {
			Key: "daemon.idle_timeout", Flag: "idle-timeout", Kind: Duration, Default: "5m", Min: "0s", Max: "24h", Reload: true, Field: &c.Daemon.IdleTimeout,
			Help: `End after being idle so long, under socket activation only: the next client starts the daemon again. "0s": never.`,
		}, {
			Key: "daemon.shutdown_timeout", Flag: "shutdown-timeout",
			Kind: Duration, Default: "10s", Min: "0s", Max: "1h", Reload: true, Field: &c.Daemon.ShutdownTimeout,
			Help: "How long running requests may go on after the daemon was asked to stop. Transfers are never touched then.",
		},
	}
}

// Permissions returns the bits that a checked socket.mode stands for.
func Permissions(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 || !strings.HasPrefix(text, "0") {
		return 0, fmt.Errorf("%s is not a mode, accepted: octal permissions such as 0666 or 0660", quote(text))
	}
	if n&0o600 != 0o600 {
		return 0, errors.New("the owner must be able to read and write the socket")
	}
	return fs.FileMode(n), nil
}

func permissions(v any) error {
	_, err := Permissions(v.(string))
	return err
}
