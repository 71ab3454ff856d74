// Package crash kills the daemon with SIGKILL at every boundary between two steps and
// during its commands, and checks that the next daemon has the same result as an
// undisturbed one: the desired state is reached, everything is mounted once, each effect is
// repeated at most once per crash, and nothing is left behind.
//
// The boundaries are the failpoints of the daemon's test build. A dry run of each phase
// collects the boundaries that it passes, and each of them is a test case. A boundary that
// is not passed again is a failure.
//
// The package does not depend on the steps.
package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(fixture.Main(m)) }

// kind is one type of storage.
type kind struct {
	name   string
	volume *lab.VolumeOptions // nil: there is no logical volume
	mount  fixture.MountSpec  // without its path
	fstype string             // what the mount table shows
}

var kinds = []kind{
	{"xfs", &lab.VolumeOptions{NQN: "nqn.2014-08.org.example:xfs", NSID: 3},
		fixture.MountSpec{Type: "xfs", Index: 3, NQN: "nqn.2014-08.org.example:xfs", NSID: "3"}, "xfs"},
	{"raw", &lab.VolumeOptions{Raw: true}, fixture.MountSpec{Type: "none", Index: 1, Own: true, UID: 1234, GID: 2345}, "devtmpfs"},
	{"gfs2", &lab.VolumeOptions{Shared: true}, fixture.MountSpec{Type: "gfs2", Index: 2}, "xfs"},
	{"lustre", nil, fixture.MountSpec{Type: "lustre", FSName: "job7fs", MGS: "10.1.2.3@tcp:10.1.2.4@tcp"}, "tmpfs"},
	{"reference", &lab.VolumeOptions{}, fixture.MountSpec{Type: "xfs", Device: "reference", Index: 4}, "xfs"},
}

// hostName is a Lustre file system whose server has a host name in the object, while the
// mount table shows an address.
var hostName = kind{"lustre by host name", nil, fixture.MountSpec{Type: "lustre", FSName: "job8fs", MGS: "localhost@tcp"}, "tmpfs"}

// hookPlaces are all hook lists of a profile.
var hookPlaces = []string{
	"preActivate", "postActivate", "preMount", "postMount",
	"preUnmount", "postUnmount", "preDeactivate", "postDeactivate",
}

// set is the state that the cases of one kind share: a node, a volume and a profile with a
// hook in every list. Each case uses a separate object and path.
type set struct {
	*fixture.Fixture
	kind  kind
	hooks string // file to which hooks write their names
	cases int
}

func newSet(t *testing.T, k kind) *set {
	s := &set{Fixture: fixture.New(t), kind: k}
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

// profile creates the profile, including after it was deleted.
func (s *set) profile() {
	s.UseProfile(fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{s.kind.mount.Type: hooksInto(s.hooks)}})
}

func hooksInto(file string) fixture.Hooks {
	h := fixture.Hooks{}
	for _, place := range hookPlaces {
		h[place] = []string{fmt.Sprintf("echo %s >> %s", place, file)}
	}
	return h
}

// effects counts the effects on the machine: each hook, and each call of a program that can
// change something, by its command line, in which the directory of the case has a common
// name.
type effects map[string]int

// readers are calls that change nothing.
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
		// mount(8) adds options when it calls its helper.
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

// forget resets the count of effects.
func (s *set) forget(t *testing.T) {
	t.Helper()
	if err := s.ClearLog(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.hooks); err != nil {
		t.Fatal(err)
	}
}

// beyond returns the effects that exceed a bound: each effect of base may be repeated once
// per crash, commands once per crash and object, and there may be no effect that is not in
// base.
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

// missing returns the effects in base that are not in e.
func (e effects) missing(base effects) (list []string) {
	for what := range base {
		if e[what] == 0 {
			list = append(list, fmt.Sprintf("%q was not done", what))
		}
	}
	slices.Sort(list)
	return list
}
