package main

import (
	"github.com/compute-daemons/compute-daemons/internal/service"
	"github.com/compute-daemons/compute-daemons/systemd"
)

// machine is where the service is installed: here. Tests say otherwise.
var machine service.Machine

func asService() service.Service {
	return service.Service{
		Name: program, Description: "Data Workflow Service (DWS) Client Mount Service",
		Units:   []service.Unit{{Name: "clientmountd.service", Text: systemd.ClientmountdService}},
		Machine: machine,
	}
}
