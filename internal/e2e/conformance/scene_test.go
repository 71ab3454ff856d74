package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 40 * time.Second

// scene is a stage for one kind.
type scene struct {
	*stage.Stage
	reporter
	t       *testing.T
	k       *kind
	d       *lab.Daemon // the last that was started
	volumes map[int]*lab.Volume
}

// reporter is the part of a test that scenes speak to.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

func newScene(t *testing.T, k *kind) *scene {
	s := &scene{Stage: stage.New(t), reporter: t, t: t, k: k, volumes: map[int]*lab.Volume{}}
	s.must(s.ClearLog())
	t.Cleanup(func() {
		if t.Failed() {
			s.sweep()
		}
	})
	return s
}

// sweep takes away what a failed scene left, so that it fails alone.
func (s *scene) sweep() {
	if s.d != nil {
		s.d.Kill9()
	}
	list, _ := s.Mounts()
	for _, m := range slices.Backward(list) {
		_ = unix.Unmount(m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err := s.Reboot(); err != nil {
		s.t.Log(err)
	}
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// run starts the daemon: the one that is released wherever that can work.
func (s *scene) run(flags ...string) *lab.Daemon {
	s.Helper()
	if s.k.test {
		s.d = s.StartTest(nil, flags...)
	} else {
		s.d = s.Start(flags...)
	}
	return s.d
}

// storage makes what allocation index needs and returns the entry for it.
func (s *scene) storage(index int, o lab.VolumeOptions) lab.MountSpec {
	s.Helper()
	if s.k.lvm {
		o.Raw, o.Shared = s.k.file, s.k.locks
		s.volumes[index] = s.Volume(index, o)
	}
	return s.k.spec(s.Path(fmt.Sprintf("m%d", index)), index)
}

// ready is a scene with the shipped profile, one volume and a daemon.
func (s *scene) ready(flags ...string) lab.MountSpec {
	s.Helper()
	s.UseProfile(lab.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.run(flags...)
	return m
}

// source is what the mount table shows as the source, and the table of
// commands calls D.
func (s *scene) source(index int) string {
	if v := s.volumes[index]; v != nil {
		return v.Node
	}
	return mgs + ":/" + fsName(index)
}

// words fills in a line of the kind's tables for an entry.
func (s *scene) words(lines []string, m lab.MountSpec) []string {
	vg, lv := "", ""
	if v := s.volumes[m.Index]; v != nil {
		vg, lv = v.VG, v.LV
	}
	var out []string
	for _, line := range lines {
		words := strings.Fields(line)
		for i, w := range words {
			switch w {
			case "V":
				words[i] = vg
			case "V/L":
				words[i] = vg + "/" + lv
			case "D":
				words[i] = s.source(m.Index)
			case "P":
				words[i] = m.Path
			}
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// commands are the calls since the log was cleared, as a person would type
// them. Queries are named by program alone: what they ask for is checked, what
// they look like is the daemon's own business. Helpers of mount(8) are not
// calls of the daemon.
func (s *scene) commands() []string {
	s.Helper()
	calls, err := s.Log()
	s.must(err)
	var out []string
	for _, c := range calls {
		line := strings.Join(c.Argv, " ")
		switch c.Tool {
		case "mount.lustre", "mount.gfs2":
			continue
		case "lvs", "vgs":
			if !strings.Contains(line, "--nolock") || !strings.Contains(line, "--reportformat json") {
				s.Errorf("%s %s: it must neither take a lock nor be read by eye", c.Tool, line)
			}
			out = append(out, c.Tool)
		default:
			out = append(out, c.Tool+" "+line)
		}
	}
	return out
}

// called compares the calls with what they should be.
func (s *scene) called(want ...string) {
	s.Helper()
	if got := s.commands(); !slices.Equal(got, want) {
		s.Errorf("called:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	s.must(s.ClearLog())
}

// mounted checks that exactly one mount of the entry is there, and its owner.
func (s *scene) mounted(m lab.MountSpec) {
	s.Helper()
	all, err := s.Mounts()
	s.must(err)
	n := 0
	for _, have := range all {
		if have.Target != m.Path {
			continue
		}
		n++
		if s.k.mounted != "" && (have.Type != s.k.mounted || have.Source != s.source(m.Index)) {
			s.Errorf("%s: type %s from %s, want %s from %s", m.Path, have.Type, have.Source, s.k.mounted, s.source(m.Index))
		}
		if s.k.file && filepath.Base(have.Root) != filepath.Base(s.source(m.Index)) {
			s.Errorf("%s: bound from %s, want %s", m.Path, have.Root, s.source(m.Index))
		}
	}
	if n != 1 {
		s.Errorf("%s is mounted %d times", m.Path, n)
	}
}

// unmounted checks that nothing is mounted and the target is gone.
func (s *scene) unmounted(m lab.MountSpec) {
	s.Helper()
	if have, ok, err := s.MountAt(m.Path); ok || err != nil {
		s.Errorf("%s is still mounted: %+v %v", m.Path, have, err)
	}
	if _, err := os.Lstat(m.Path); !os.IsNotExist(err) {
		s.Errorf("the target %s was not removed: %v", m.Path, err)
	}
}

// ends stops the daemon the gentle way and looks for what it left.
func (s *scene) ends() {
	s.Helper()
	s.stops()
	s.NothingLeft()
	s.noRecords()
}

func (s *scene) stops() {
	s.Helper()
	s.must(s.d.Term())
	if code, err := s.d.Wait(s.Context(patience)); code != 0 || err != nil {
		s.Fatalf("exit code %d, %v", code, err)
	}
}

func (s *scene) records() []string {
	list, err := filepath.Glob(filepath.Join(s.Runtime, "mounts", "*"))
	s.must(err)
	return list
}

func (s *scene) noRecords() {
	s.Helper()
	if list := s.records(); len(list) > 0 {
		s.Errorf("records left behind: %s", list)
	}
	if _, err := os.Lstat(s.Base); !os.IsNotExist(err) {
		s.Errorf("%s was made for mounts and is left behind: %v", s.Base, err)
	}
}

// get returns the object as it is now.
func (s *scene) get(name string) lab.Object {
	s.Helper()
	o, err := s.Cluster.Get(s.Context(patience), "ClientMount", s.Node, name)
	s.must(err)
	return o
}

// logged waits for a line with the message about an object, and returns its
// fields.
func (s *scene) logged(message, name string) map[string]any {
	s.Helper()
	return s.line(fmt.Sprintf("%q about %s", message, name), func(f map[string]any) bool {
		return f["msg"] == message && (name == "" || f["clientmount"] == name)
	})
}

func (s *scene) line(what string, fits func(map[string]any) bool) map[string]any {
	s.Helper()
	l, err := s.d.WaitLog(s.Context(patience), func(l lab.LogLine) bool { return l.Fields != nil && fits(l.Fields) })
	if err != nil {
		s.Fatalf("no line %s in the log: %v", what, err)
	}
	return l.Fields
}

// count tells how many lines fit.

// alive fails when the daemon has ended.
func (s *scene) alive() {
	s.Helper()
	select {
	case <-s.d.Done():
		s.Fatal("the daemon has ended")
	default:
	}
}

// failed waits for an error of the severity whose text has all the parts.
func (s *scene) failed(name, severity string, parts ...string) lab.Object {
	s.Helper()
	has := func(o lab.Object) bool {
		for _, p := range parts {
			if !strings.Contains(o.DebugMessage(), p) {
				return false
			}
		}
		return o.Severity() == severity
	}
	o, err := s.Cluster.WaitStatus(s.Context(patience), s.Node, name, has)
	if err != nil {
		s.Fatalf("%s: no %s error with %q: %v; the status is %v", name, severity, parts, err, s.get(name)["status"])
	}
	if n := len(o.DebugMessage()); n > 4<<10 {
		s.Errorf("the message has %d bytes", n)
	}
	return o
}

// gate makes the next matching call of a program wait, and returns the function
// that lets it go on; the scene's end opens it at the latest.
func (s *scene) gate(tool string, f lab.Fault) (reached, open func()) {
	s.Helper()
	path, open0 := s.Gate(fmt.Sprintf("%s-%s", s.Node, tool))
	f.Gate = path
	s.must(s.Fault(tool, f))
	s.Cleanup(func() { _ = open0() })
	reached = func() {
		s.Helper()
		_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool {
			return c.Tool == tool && c.Exit == -1 && strings.Contains(strings.Join(c.Argv, " "), f.Match)
		})
		s.must(err)
	}
	return reached, func() { s.Helper(); s.must(open0()) }
}
