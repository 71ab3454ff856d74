// Package crash kills the daemon with SIGKILL at every boundary between two of
// its steps, and in the middle of its commands, and looks whether the next
// daemon ends where an undisturbed one would have: the wanted state reached,
// everything mounted once, nothing done more than once too often, nothing left
// behind.
//
// The boundaries are the failpoints of the daemon's test build. A dry run of
// each phase collects those that it really passes, and each of them becomes a
// case: none is left out, and one that is not met again is a failure.
//
// It must not know what a step does, nor which steps there are.
package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }

// kind is one type of storage.
type kind struct {
	name   string
	volume *lab.VolumeOptions // nil: there is no logical volume
	mount  world.MountSpec    // without its path
	fstype string             // what the mount table shows
}

var kinds = []kind{
	{"xfs", &lab.VolumeOptions{NQN: "nqn.2014-08.org.example:xfs", NSID: 3},
		world.MountSpec{Type: "xfs", Index: 3, NQN: "nqn.2014-08.org.example:xfs", NSID: "3"}, "xfs"},
	{"raw", &lab.VolumeOptions{Raw: true}, world.MountSpec{Type: "none", Index: 1, Own: true, UID: 1234, GID: 2345}, "devtmpfs"},
	{"gfs2", &lab.VolumeOptions{Shared: true}, world.MountSpec{Type: "gfs2", Index: 2}, "xfs"},
	{"lustre", nil, world.MountSpec{Type: "lustre", FSName: "job7fs", MGS: "10.1.2.3@tcp:10.1.2.4@tcp"}, "tmpfs"},
	{"reference", &lab.VolumeOptions{}, world.MountSpec{Type: "xfs", Device: "reference", Index: 4}, "xfs"},
}

// hostName is a Lustre file system whose server is given by host name. The mount
// table shows an address instead.
var hostName = kind{"lustre by host name", nil, world.MountSpec{Type: "lustre", FSName: "job8fs", MGS: "localhost@tcp"}, "tmpfs"}

// hookPlaces are all places in a profile where an administrator may have
// lines.
var hookPlaces = []string{
	"preActivate", "postActivate", "preMount", "postMount",
	"preUnmount", "postUnmount", "preDeactivate", "postDeactivate",
}

// set is what the cases of one kind share: a node, a volume and a profile with a hook in
// every place. Each case on it uses an object and a path of its own.
type set struct {
	*world.World
	kind  kind
	hooks string // file to which hooks write their names
	cases int
}

func newSet(t *testing.T, k kind) *set {
	s := &set{World: world.New(t), kind: k}
	s.hooks = s.Runtime + ".hooks"
	if k.volume != nil {
		s.Volume(k.mount.Index, *k.volume)
	}
	if k.name == hostName.name {
		source := k.mount.MGS + ":/" + k.mount.FSName
		if err := s.ShowSource(source, "127.0.0.1@tcp:/"+k.mount.FSName); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.ShowSource(source, "") })
	}
	s.profile()
	return s
}

// profile makes the profile, also again after it was deleted.
func (s *set) profile() {
	s.UseProfile(world.ProfileSpec{Hooks: map[string]world.Hooks{s.kind.mount.Type: hooksInto(s.hooks)}})
}

func hooksInto(file string) world.Hooks {
	h := world.Hooks{}
	for _, place := range hookPlaces {
		h[place] = []string{fmt.Sprintf("echo %s >> %s", place, file)}
	}
	return h
}

// effects counts what was done to the machine: each hook, and each call of a
// program that may change something, by its command line, in which the case's
// own directory has a common name.
type effects map[string]int

// readers are calls that only look.
var readers = []string{"lvs ", "vgs ", "nvme list", "dlm_tool "}

func (s *set) effects(t *testing.T, path string) effects {
	t.Helper()
	out := effects{}
	calls, err := s.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		line := strings.ReplaceAll(c.Tool+" "+strings.Join(c.Argv, " "), filepath.Dir(path), "DIR")
		reads := slices.ContainsFunc(readers, func(r string) bool { return strings.HasPrefix(line, r) })
		// mount(8) adds options of its own when it calls its helper.
		if !reads && !strings.HasPrefix(c.Tool, "mount.") {
			out[line]++
		}
	}
	done, err := os.ReadFile(s.hooks)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, h := range strings.Fields(string(done)) {
		out["hook "+h]++
	}
	return out
}

// forget starts the count of effects again.
func (s *set) forget(t *testing.T) {
	t.Helper()
	if err := s.ClearLog(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.hooks); err != nil {
		t.Fatal(err)
	}
}

// beyond lists what exceeds a bound: each effect of base may have come again
// for each crash, commands for each object, and nothing may have come that base
// does not have.
func (e effects) beyond(base effects, crashes, objects int) (list []string) {
	for what, n := range e {
		most := base[what] + crashes
		if !strings.HasPrefix(what, "hook ") {
			most = base[what] + crashes*objects
		}
		if base[what] == 0 || n > most {
			list = append(list, fmt.Sprintf("%q was done %d times, undisturbed %d", what, n, base[what]))
		}
	}
	slices.Sort(list)
	return list
}

// missing lists what base has and e has not.
func (e effects) missing(base effects) (list []string) {
	for what := range base {
		if e[what] == 0 {
			list = append(list, fmt.Sprintf("%q was not done", what))
		}
	}
	slices.Sort(list)
	return list
}
