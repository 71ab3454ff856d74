package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// source is what the mount table shows as the source, and the table of
// commands calls D.
func (s *env) source(index int) string {
	if v := s.volumes[index]; v != nil {
		return v.Node
	}
	return mgs + ":/" + fsName(index)
}

// words fills in a line of the kind's tables for an entry.
func (s *env) words(lines []string, m world.MountSpec) []string {
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
func (s *env) commands() []string {
	s.Helper()
	calls, err := s.Log()
	s.Must(err)
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
func (s *env) called(want ...string) {
	s.Helper()
	if got := s.commands(); !slices.Equal(got, want) {
		s.Errorf("called:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	s.Must(s.ClearLog())
}

// mounted checks that exactly one mount of the entry is there, and its owner.
func (s *env) mounted(m world.MountSpec) {
	s.Helper()
	all, err := s.Mounts()
	s.Must(err)
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

// notMounted checks that nothing is mounted.
func (s *env) notMounted(m world.MountSpec) {
	s.Helper()
	if have, ok, err := s.MountAt(m.Path); ok || err != nil {
		s.Errorf("%s is still mounted: %+v %v", m.Path, have, err)
	}
}

// unmounted checks that nothing is mounted and the target is gone.
func (s *env) unmounted(m world.MountSpec) {
	s.Helper()
	s.notMounted(m)
	if _, err := os.Lstat(m.Path); !os.IsNotExist(err) {
		s.Errorf("the target %s was not removed: %v", m.Path, err)
	}
}

// owned checks the owner of what the object wants to be owned.
func (s *env) owned(m world.MountSpec) {
	s.Helper()
	if !m.Own {
		return
	}
	st, err := os.Stat(m.Path)
	s.Must(err)
	sys := st.Sys().(*syscall.Stat_t)
	if int(sys.Uid) != m.UID || int(sys.Gid) != m.GID || st.Mode()&os.ModeDevice == 0 {
		s.Errorf("%s: uid %d gid %d mode %v, want the device node with %d %d", m.Path, sys.Uid, sys.Gid, st.Mode(), m.UID, m.GID)
	}
}

// get returns the object as it is now.
func (s *env) get(name string) lab.Object {
	s.Helper()
	o, err := s.Cluster.Get(s.Context(patience), "ClientMount", s.Node, name)
	s.Must(err)
	return o
}

// logged waits for a line with the message about an object, and returns its
// fields.
func (s *env) logged(message, name string) map[string]any {
	s.Helper()
	return s.line(fmt.Sprintf("%q about %s", message, name), func(f map[string]any) bool {
		return f["msg"] == message && (name == "" || f["clientmount"] == name)
	})
}

func (s *env) line(what string, fits func(map[string]any) bool) map[string]any {
	s.Helper()
	l, err := s.d.WaitLog(s.Context(patience), func(l lab.LogLine) bool { return l.Fields != nil && fits(l.Fields) })
	if err != nil {
		s.Fatalf("no line %s in the log: %v", what, err)
	}
	return l.Fields
}

// count tells how many lines fit.

// alive fails when the daemon has ended.
func (s *env) alive() {
	s.Helper()
	select {
	case <-s.d.Done():
		s.Fatal("the daemon has ended")
	default:
	}
}

// failed waits for an error of the severity whose text has all the parts.
func (s *env) failed(name, severity string, parts ...string) lab.Object {
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

// follow notes each state of an object that others can see, from before it
// exists until it is gone.
func (s *env) follow(name string) (states func() []string) {
	var list []string
	done, started := make(chan struct{}), make(chan struct{})
	ctx := s.Context(patience)
	go func() {
		defer close(done)
		seen := false
		_, _ = s.Cluster.WaitFor(ctx, "ClientMount", s.Node, name, func(o lab.Object) bool {
			if o == nil {
				if !seen && len(list) == 0 {
					select {
					case <-started:
					default:
						close(started)
					}
					return false
				}
				list = append(list, "gone")
				return true
			}
			seen = true
			if text := stateWords(o); len(list) == 0 || list[len(list)-1] != text {
				list = append(list, text)
			}
			return false
		})
	}()
	<-started
	return func() []string { <-done; return list }
}

// stateWords puts finalizer, deletion and status into words.
func stateWords(o lab.Object) string {
	words := []string{"no finalizer"}
	list, _ := o.At("metadata", "finalizers").([]any)
	if slices.Contains(list, any(api.FinalizerClientMount)) {
		words[0] = "held"
	}
	if o.String("metadata", "deletionTimestamp") != "" {
		words = append(words, "deleted")
	}
	mounts, _ := o.At("status", "mounts").([]any)
	for i := range mounts {
		words = append(words, fmt.Sprintf("%v:%v", o.At("status", "mounts", i, "state"), o.At("status", "mounts", i, "ready")))
	}
	if o.At("status", "allReady") == true {
		words = append(words, "all")
	}
	if o.Severity() != "" {
		words = append(words, o.Severity())
	}
	return strings.Join(words, " ")
}
