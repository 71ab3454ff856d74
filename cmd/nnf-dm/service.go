package main

import (
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/service"
	"github.com/compute-daemons/compute-daemons/internal/version"
	"github.com/compute-daemons/compute-daemons/systemd"
)

// machine is where the service is installed: here. Tests say otherwise.
var machine service.Machine

func asService() service.Service {
	return service.Service{
		Name: program, Description: "Near-Node Flash (NNF) Data Movement Service", User: program,
		Units: []service.Unit{
			{Name: "nnf-dm.service", Text: systemd.NnfdmService},
			{Name: "nnf-dm.socket", Text: systemd.NnfdmSocket},
		},
		Version: version.Version, Machine: machine, Describe: describe,
	}
}

// describe tells programs which socket the daemon serves.
func describe(start service.Start, status *service.Status) {
	var cfg config.Nnfdm
	if _, _, err := config.Load(config.NnfdmTable(&cfg), config.Sources{Args: start.Args, Environ: start.Environ}); err == nil {
		status.Paths["socket"] = cfg.Socket.Path
	}
}
