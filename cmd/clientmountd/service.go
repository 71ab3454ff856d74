package main

import (
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/version"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// machine is where the service is installed: here. Tests say otherwise.
var machine systemd.Machine

func asService() systemd.Service {
	return systemd.Service{
		Name: program, Description: "Data Workflow Service (DWS) Client Mount Service",
		Units:   []systemd.Unit{{Name: "clientmountd.service", Text: units.ClientmountdService}},
		Version: version.Version, Machine: machine, Describe: describe,
	}
}

// describe tells programs where the records are that the daemon uses, and what
// they and the daemon report. It works while the daemon is down.
func describe(start systemd.Start, status *systemd.Status) {
	if status.Service.Active {
		status.API = clientmount.APIOf(status.Service.Status)
	}
	status.Mounts = new(systemd.MountStatus)
	var cfg config.Clientmountd
	if _, _, err := config.Load(config.ClientmountdTable(&cfg), config.Sources{Args: start.Args, Environ: start.Environ}); err != nil {
		status.Mounts.Error = "settings: " + err.Error()
		return
	}
	dir := cfg.Daemon.RuntimeDirectory
	status.Paths["runtime_directory"], status.Paths["records"] = dir, clientmount.RecordsDirectory(dir)
	mounted, err := clientmount.ReadMounted(dir, new(node.Node))
	if err != nil {
		status.Mounts.Error = err.Error()
	}
	status.Mounts.Count, status.Mounts.Unreadable = mounted.Objects, mounted.Unreadable
}
