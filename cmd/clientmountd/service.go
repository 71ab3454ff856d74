package main

import (
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/service"
	"github.com/compute-daemons/compute-daemons/internal/version"
	"github.com/compute-daemons/compute-daemons/systemd"
)

// machine is where the service is installed: here. Tests say otherwise.
var machine service.Machine

func asService() service.Service {
	return service.Service{
		Name: program, Description: "Data Workflow Service (DWS) Client Mount Service",
		Units:   []service.Unit{{Name: "clientmountd.service", Text: systemd.ClientmountdService}},
		Version: version.Version, Machine: machine, Describe: describe,
	}
}

// describe tells programs where the records are that the daemon uses, and what
// they and the daemon report. It works while the daemon is down.
func describe(start service.Start, status *service.Status) {
	if status.Service.Active {
		status.API = clientmount.APIOf(status.Service.Status)
	}
	status.Mounts = new(service.MountStatus)
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
