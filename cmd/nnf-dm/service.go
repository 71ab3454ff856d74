package main

import (
	"github.com/compute-daemons/compute-daemons/internal/service"
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
		Machine: machine,
	}
}
