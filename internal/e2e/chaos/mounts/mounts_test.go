// Package mounts is the world of clientmountd: one compute node with volumes, real mounts and a real API
// server.
package mounts

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/chaos"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(fixture.Main(m)) }

// The arguments of steps.
var (
	objects = []string{"a", "b", "c", "d"}
	volumes = []string{"xfs", "xfs-2", "gfs2", "raw", "lustre"}
	paths   = []string{"p", "q", "r", "p/inner", "q/inner"}
	states  = []string{"mounted", "unmounted"}
	tools   = []string{"lvs", "vgs", "lvchange", "vgchange", "nvme", "mount", "umount", "mount.lustre"}
	holds   = []string{"cwd", "open", "mmap", "nested", "namespace"}
	millis  = []string{"10", "50", "100", "200", "500", "1000", "2000"}
	harms   = []string{"fails", "fails-after", "hangs", "floods", "garbage", "slow", "killed"}
)

var verbs = chaos.Join(chaos.ServerFaults("any", "list", "watch", "get", "patch-status", "patch-finalizer"), map[string]chaos.Verb{
	"create":  {Weight: 30, Args: [][]string{objects, volumes, paths}},
	"want":    {Weight: 25, Args: [][]string{objects, states}},
	"move":    {Weight: 3, Args: [][]string{objects, paths}},
	"add":     {Weight: 4, Args: [][]string{objects, volumes, paths}}, // one more mount of the object
	"drop":    {Weight: 2, Args: [][]string{objects}},                 // its first mount
	"delete":  {Weight: 12, Args: [][]string{objects}},
	"strip":   {Weight: 2, Args: [][]string{objects}}, // removes the finalizers
	"profile": {Weight: 3, Args: [][]string{{"change", "delete", "create"}}},
	"probe":   {Weight: 3},                            // another ClientMount is served in time
	"wait":    {Weight: 40, Args: [][]string{millis}}, // milliseconds

	"hold":       {Weight: 4, Fault: true, Args: [][]string{objects, holds}}, // a process or mount keeps the mount of the object busy
	"release":    {Weight: 4},
	"foreign":    {Weight: 2, Fault: true, Args: [][]string{paths}}, // another program mounts there
	"lose":       {Weight: 2, Fault: true, Args: [][]string{volumes}},
	"return":     {Weight: 3, Args: [][]string{volumes}},
	"deactivate": {Weight: 2, Fault: true, Args: [][]string{volumes}}, // by an administrator
	"tool":       {Weight: 10, Fault: true, Args: [][]string{tools, harms, chaos.Times}},
	"kill":       {Weight: 4, Fault: true},
	"kill-alone": {Weight: 2, Fault: true}, // commands of the daemon keep running
	"term":       {Weight: 2, Fault: true},
	"stop":       {Weight: 2, Fault: true},
	"cont":       {Weight: 2},
	"start":      {Weight: 30, Args: [][]string{{"usual", "usual", "usual", "nofile=30", "nofile=64", "memory=8MiB", "busy=kill"}}},
	"runtime":    {Weight: 3, Fault: true, Args: [][]string{chaos.DirectoryFaults}},
	"damage":     {Weight: 2, Fault: true, Args: [][]string{{"empty", "half", "text", "link"}}}, // a record
	"repair":     {Weight: 3},
	"token":      {Weight: 2, Fault: true, Args: [][]string{{"bad", "good"}}},
	"pids":       {Weight: 2, Fault: true, Args: [][]string{{"1", "3", "6"}}}, // so many more processes and threads
	"clear":      {Weight: 4},                                                 // ends the faults of tools, connections and the runtime directory
})

// world returns the world, with variables for the environment of the daemon.
func world(environment ...string) chaos.World {
	return chaos.World{Name: "mounts", Verbs: verbs, Length: 60, Adjust: again, Play: func(t *testing.T, tb lab.TB, s chaos.Script) chaos.Counts {
		n := newNode(tb, fixture.New(t))
		n.environment = environment
		n.run(s)
		return n.counts
	}}
}

// again makes one of four creations use the volume and the path of the creation before it: two
// ClientMounts with one mount.
func again(random *rand.Rand, before chaos.Script, s *chaos.Step) {
	if s.Verb != "create" || random.IntN(4) != 0 {
		return
	}
	for _, b := range slices.Backward(before) {
		if b.Verb == "create" {
			copy(s.Args[1:], b.Args[1:])
			return
		}
	}
}

func TestSeeds(t *testing.T)   { world().Seeds(t) }
func TestScripts(t *testing.T) { world().Scripts(t) }
func TestTexts(t *testing.T)   { world().Texts(t) }

// A build with a seeded defect is found in time, for each of the defects.
func TestBugs(t *testing.T) {
	path := filepath.Join(fixture.Root(t), "bin", "clientmountd-chaosbug")
	t.Setenv("CLIENTMOUNTD_FAILPOINTS", path)
	for _, bug := range []string{"mount-again", "failed-unmount", "finalizer-first"} {
		t.Run(bug, func(t *testing.T) { world("CLIENTMOUNTD_BUG="+bug).Finds(t, path) })
	}
}
