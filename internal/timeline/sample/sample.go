// Package sample creates timelines for tests, as clientmountd writes them for a gfs2 file system: it
// has the same steps in the same order, and a step that failed has the number of tries and the time
// of all of them. A test of package clientmount compares the steps with those of the controller.
//
// It must not depend on how timelines are rendered.
package sample

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// Zero is the start of the workflow.
var Zero = time.Date(2026, 3, 2, 8, 15, 42, 0, time.UTC)

// Workflow is the name of the workflow.
const Workflow = "fluxjob-4711"

// step is a step with its typical time in milliseconds.
type step struct {
	kind, name string
	typical    float64
}

// requests precede the first mount.
var requests = []step{
	{mountstate.StepAPI, mountstate.NameServed, 12}, // this server does not serve the newest known version
	{mountstate.StepAPI, mountstate.NameRead("NnfStorageProfile"), 20},
	{mountstate.StepAPI, mountstate.NameWrite(""), 30},
}

var mount = []step{
	{mountstate.StepHook, "preActivate[0]", 80},
	{mountstate.StepWait, "waitVG", 2400},
	{mountstate.StepActivate, "lockStart", 120},
	{mountstate.StepActivate, "activate", 310},
	{mountstate.StepWait, "waitDevice", 35},
	{mountstate.StepHook, "postActivate[0]", 40},
	{mountstate.StepHook, "preMount[0]", 25},
	{mountstate.StepMount, "mount", 190},
	{mountstate.StepMount, "chown", 1},
	{mountstate.StepHook, "postMount[0]", 60},
}

var unmount = []step{
	{mountstate.StepHook, "preUnmount[0]", 20},
	{mountstate.StepMount, "unmount", 450},
	{mountstate.StepHook, "postUnmount[0]", 25},
	{mountstate.StepActivate, "deactivate", 280},
	{mountstate.StepActivate, "lockStop", 90},
}

// Node returns the timeline of a node. The same name and number return the same timeline. Each 16th
// node waits long for its volume group, and each 97th needs several tries to mount.
func Node(name string, number int) *mountstate.Timeline {
	r := rand.New(rand.NewPCG(1, uint64(number)))
	slow := 1.0
	if number%16 == 15 {
		slow = 4 + 12*r.Float64()
	}
	at := Zero.Add(time.Duration(r.Float64() * float64(3*time.Second)))
	life := mountstate.Life{ClientMount: Workflow + "-0-computes", UID: fmt.Sprintf("6f1c2b9e-0d3a-4a55-9f10-%012d", number), Workflow: Workflow, Started: at}
	path := "/mnt/nnf/0b9f7f61-8a43-4f8e-9d1c-3f1f6f7d2a10-0"
	add := func(path, phase, kind, name string, ms float64, tries int, failure string) {
		length := time.Duration(ms * float64(time.Millisecond)).Truncate(time.Microsecond)
		life.Steps = append(life.Steps, mountstate.Step{
			Path: path, Phase: phase, Kind: kind, Name: name, Started: at, Seconds: length.Seconds(), Tries: tries, Error: failure, Finished: at.Add(length),
		})
		at = at.Add(length)
	}
	vary := func(ms float64) float64 { return ms * (0.6 + r.ExpFloat64()*0.4) }
	for _, s := range requests {
		add("", mountstate.PhaseMount, s.kind, s.name, vary(s.typical), 1, "")
	}
	for _, s := range mount {
		ms := vary(s.typical)
		switch {
		case s.name == "waitVG":
			add(path, mountstate.PhaseMount, s.kind, s.name, ms*slow, 1, "")
		case s.name == "mount" && number%97 == 42:
			// Each try fails after a short time; the pauses are a step that overlaps with it.
			first := at
			add(path, mountstate.PhaseMount, s.kind, s.name, ms, 3, "unable to mount: mount: exit code 32: wrong fs type, bad option, bad superblock on /dev/mapper/vg-lv")
			tried := &life.Steps[len(life.Steps)-1]
			at = first.Add(tried.Finished.Sub(first) / 3)
			add("", mountstate.PhaseMount, mountstate.StepRetry, mountstate.NameRetry, 3000, 2, "")
			at = at.Add(tried.Finished.Sub(first) * 2 / 3)
			tried.Finished = at
		default:
			add(path, mountstate.PhaseMount, s.kind, s.name, ms, 1, "")
		}
	}
	ready := at
	add("", mountstate.PhaseMount, mountstate.StepAPI, mountstate.NameWrite("status"), vary(45), 1, "")
	life.Ready = &ready
	at = Zero.Add(40*time.Minute + time.Duration(r.Float64()*float64(time.Second)))
	add("", mountstate.PhaseUnmount, mountstate.StepAPI, mountstate.NameRead("NnfStorageProfile"), vary(20), 1, "")
	for _, s := range unmount {
		add(path, mountstate.PhaseUnmount, s.kind, s.name, vary(s.typical), 1, "")
	}
	add("", mountstate.PhaseUnmount, mountstate.StepAPI, mountstate.NameWrite("status"), vary(45), 1, "")
	add("", mountstate.PhaseUnmount, mountstate.StepAPI, mountstate.NameWrite(""), vary(30), 1, "")
	ended := at
	life.Ended = &ended
	return &mountstate.Timeline{Version: mountstate.TimelineVersion, Node: name, Time: Zero.Add(time.Hour), Lives: []mountstate.Life{life}}
}

// Fleet returns the timelines of many nodes.
func Fleet(nodes int) (list []*mountstate.Timeline) {
	for i := range nodes {
		list = append(list, Node(fmt.Sprintf("compute-%05d", i+1), i))
	}
	return list
}
