package node

import (
	"context"
	"encoding/json"
	"strconv"
	"time"
)

// nvmeCapture bounds the listing: about 1 KiB for each namespace.
const nvmeCapture = 8 << 20

// listNVMe asks nvme-cli for the namespaces.
func (n *Node) listNVMe(ctx context.Context, timeout time.Duration) ([]Namespace, error) {
	res, err := n.Run(ctx, Command{
		Argv:    []string{"nvme", "list", "-v", "--output-format=json"},
		Timeout: timeout, Capture: nvmeCapture,
	})
	if err != nil {
		return nil, err
	}
	return parseNVMeList(res.Stdout)
}

// The listing of nvme-cli. 1.x has the subsystem's fields in each entry of Devices,
// 2.x has a list Subsystems there; multipath heads are next to the controllers.
type (
	nvmeList struct {
		Devices []nvmeDevice
	}
	nvmeDevice struct {
		nvmeSubsystem
		Subsystems []nvmeSubsystem
	}
	nvmeSubsystem struct {
		SubsystemNQN string
		Controllers  []struct {
			Controller string
			Namespaces []nvmeNamespace
		}
		Namespaces []nvmeNamespace
	}
	nvmeNamespace struct {
		NameSpace string
		NSID      nsid
	}
)

// nsid is a namespace's number, which some versions print as text.
type nsid uint64

func (v *nsid) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	if s == "" || s == "null" {
		return nil
	}
	u, err := strconv.ParseUint(s, 0, 32)
	*v = nsid(u)
	return err
}

// parseNVMeList reads the output of nvme list -v in the layouts of 1.x and 2.x.
func parseNVMeList(out string) ([]Namespace, error) {
	var doc nvmeList
	if err := parseJSON("nvme list", out, &doc); err != nil {
		return nil, err
	}
	var all []Namespace
	for _, d := range doc.Devices {
		for _, s := range append([]nvmeSubsystem{d.nvmeSubsystem}, d.Subsystems...) {
			all = append(all, s.namespaces()...)
		}
	}
	return all, nil
}

func (s nvmeSubsystem) namespaces() []Namespace {
	var out []Namespace
	add := func(controller string, spaces []nvmeNamespace) {
		for _, ns := range spaces {
			name := pathName.ReplaceAllString(ns.NameSpace, "$1$2")
			if !namespaceName.MatchString(name) || ns.NSID == 0 || s.SubsystemNQN == "" {
				continue
			}
			out = append(out, Namespace{Device: "/dev/" + name, Controller: controller, NQN: s.SubsystemNQN, NSID: uint64(ns.NSID)})
		}
	}
	first := ""
	for _, c := range s.Controllers {
		if !controllerName.MatchString(c.Controller) {
			c.Controller = ""
		}
		if first == "" {
			first = c.Controller
		}
		add(c.Controller, c.Namespaces)
	}
	add(first, s.Namespaces)
	return out
}
