package main

import (
	"fmt"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/daemon/oneprocessor"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// The configuration in the words of the rooms.

func connectionsOf(c *config.Nnfdm) unixsocket.LimiterOptions {
	return unixsocket.LimiterOptions{
		What: "connections", Total: c.Limits.Connections,
		Reserve: c.Limits.Connections * c.Limits.ConnectionReserve / 100,
		User:    unixsocket.Quota{Slots: c.Limits.ConnectionsPerUser},
	}
}

func settingsOf(c *config.Nnfdm) (server.Settings, error) {
	choices, err := datamovement.NewOptions(datamovement.OptionMode(c.Options.Policy), c.Options.DCP, c.Options.MPIRun)
	if err != nil {
		return server.Settings{}, fmt.Errorf("section [options]: %w", err)
	}
	l := &c.Limits
	return server.Settings{
		Policy:  datamovement.Policy{RootMayAll: c.Access.RootMayAll, AllowRootCopies: c.Access.AllowRootCopies, ListWorkflow: c.Access.ListWorkflow},
		Choices: choices, MaxWait: l.MaxWait, LookupExpiry: c.Options.LookupExpiry,
		Limits: server.Limits{
			Streams: l.StreamsPerUser, Waiters: l.WaitersPerUser, BatchSize: l.BatchSize,
			CreatesPerSecond: l.CreatesPerSecond, CreateBurst: l.CreateBurst,
			API:       server.APIShare{QPS: c.Kubernetes.QPS, Burst: c.Kubernetes.Burst, Percent: l.APIShare},
			Movements: l.MovementsPerUser, MovementBytes: l.MovementBytesPerUser,
		},
	}, nil
}

func runtimeOf(c *config.Nnfdm) daemon.RuntimeOptions {
	return daemon.RuntimeOptions{MemLimit: c.Runtime.GoMemLimit, GOGC: gogc(c.Runtime.GoGC), MaxProcs: c.Runtime.GoMaxProcs, TakenProcs: oneprocessor.Taken}
}

func gogc(percent int) string {
	if percent < 0 {
		return "off"
	}
	return strconv.Itoa(percent)
}
