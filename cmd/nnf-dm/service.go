package main

import (
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/version"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// machine is where the service is installed: here. Tests say otherwise.
var machine systemd.Machine

func asService() systemd.Service {
	return systemd.Service{
		Name: program, Description: "Near-Node Flash (NNF) Data Movement Service", User: program,
		Units: []systemd.Unit{
			{Name: "nnf-dm.service", Text: units.NnfdmService},
			{Name: "nnf-dm.socket", Text: units.NnfdmSocket},
		},
		Version: version.Version, Machine: machine, Describe: describe,
	}
}

// describe tells programs which socket the daemon serves.
func describe(start systemd.Start, status *systemd.Status) {
	var cfg config.Nnfdm
	if _, _, err := config.Load(config.NnfdmTable(&cfg), config.Sources{Args: start.Args, Environ: start.Environ}); err == nil {
		status.Paths["socket"] = cfg.Socket.Path
	}
}
