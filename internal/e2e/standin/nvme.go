package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

// nvme plays nvme list -v --output-format=json, in the layout of nvme-cli 1.x
// or 2.x, and nvme ns-rescan.
func (t *toolbox) nvme() int {
	opts, words := options(t.args, "-o", "--output-format")
	if len(words) == 0 {
		return t.fail(1, "nvme: no command")
	}
	switch words[0] {
	case "ns-rescan":
		return t.rescan()
	case "list":
		if format, _ := first(opts, "-o", "--output-format"); format != "json" {
			return t.fail(1, "standin: nvme list without JSON is not played")
		}
		return t.nvmeList()
	}
	return t.fail(1, "ERROR: Invalid sub-command '%s' for global nvme", words[0])
}

// rescan makes missing namespaces appear, each after its delay.
func (t *toolbox) rescan() int {
	err := t.dir.Update(func(s *record.State) error {
		for _, n := range s.Namespaces {
			if n.NeedsRescan {
				n.NeedsRescan, n.Appears = false, t.now().Add(n.Late)
			}
		}
		return nil
	})
	if err != nil {
		return t.fail(125, "standin: %v", err)
	}
	return 0
}

type object = map[string]any

func (t *toolbox) nvmeList() int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "standin: %v", err)
	}
	var nqns []string
	for _, n := range s.Namespaces {
		if !slices.Contains(nqns, n.NQN) {
			nqns = append(nqns, n.NQN)
		}
	}
	subsystems := []object{}
	for i, nqn := range nqns {
		spaces := []object{}
		for _, n := range s.Namespaces {
			if n.NQN == nqn && n.Present(t.now()) {
				spaces = append(spaces, object{"NameSpace": fmt.Sprintf("nvme%dn%d", i, n.NSID), "NSID": n.NSID, "SectorSize": 512})
			}
		}
		controller := object{"Controller": fmt.Sprintf("nvme%d", i), "SerialNumber": "standin", "Transport": "pcie", "Namespaces": spaces}
		sub := object{"Subsystem": fmt.Sprintf("nvme-subsys%d", i), "SubsystemNQN": nqn, "Namespaces": []object{}}
		if s.NVMeLayout != 1 {
			// With native multipath, which is the default, 2.x lists the
			// namespaces at the subsystem and not below its controllers.
			controller["Namespaces"], sub["Namespaces"] = []object{}, spaces
			controller["Paths"] = []object{}
		}
		sub["Controllers"] = []object{controller}
		subsystems = append(subsystems, sub)
	}
	devices := subsystems
	if s.NVMeLayout != 1 {
		devices = []object{{"HostNQN": "nqn.2014-08.org.nvmexpress:uuid:standin", "HostID": "standin", "Subsystems": subsystems}}
	}
	data, err := json.MarshalIndent(object{"Devices": devices}, "", "  ")
	if err != nil {
		return t.fail(125, "standin: %v", err)
	}
	fmt.Fprintf(t.stdout, "%s\n", data)
	return 0
}

// dlmTool plays dlm_tool ls: one paragraph for each started lockspace.
func (t *toolbox) dlmTool() int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "standin: %v", err)
	}
	fmt.Fprintln(t.stdout, "dlm lockspaces")
	for i, vg := range s.Locks {
		fmt.Fprintf(t.stdout, "name          lvm_%s\nid            0x%08x\nflags         0x00000000\nmembers       1\n\n", vg, i+1)
	}
	return 0
}
