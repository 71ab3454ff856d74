package conformance

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

var metricsBehaviours = []behaviour{
	{"metrics", nil, metrics},
	{"metrics: life in four writes", xfsOnly, metricsWrites},
}

// collector is the directory of a textfile collector.
type collector struct {
	*env
	dir, file string
	texts     map[string]string // the file in each situation
}

// collect prepares a test whose daemon writes metrics, and returns its flag.
func (s *env) collect() (*collector, string) {
	s.Helper()
	c := &collector{env: s, dir: filepath.Join(s.Files, "textfile_collector"), texts: map[string]string{}}
	c.file = filepath.Join(c.dir, "clientmountd.prom")
	s.Must(os.Mkdir(c.dir, 0o755))
	return c, s.Settings("[metrics]", fmt.Sprintf("textfile = %q", c.file))
}

// shows waits until the file has these lines, and keeps its text for promtool.
func (c *collector) shows(situation string, lines ...string) {
	c.Helper()
	missing := ""
	wait.Until(c.t, "the metrics "+situation, func() bool {
		text, err := os.ReadFile(c.file)
		if os.IsNotExist(err) {
			return false
		}
		c.Must(err)
		c.texts[situation] = string(text)
		for _, line := range lines {
			if !regexp.MustCompile("(?m)^" + line + "$").Match(text) {
				if missing != line {
					missing = line
					c.t.Logf("%s: no line %q yet", situation, line)
				}
				return false
			}
		}
		return true
	})
}

// state is the line of the metrics of the mounts of this kind in a state.
func (c *collector) state(state string, count int) string {
	typ := c.k.typ
	if typ == "none" {
		typ = "raw"
	}
	return fmt.Sprintf(`clientmountd_mounts\{type="%s",state="%s"\} %d`, typ, state, count)
}

// metrics checks the file in every situation, also with promtool.
func metrics(s *env) {
	c, flag := s.collect()
	s.UseProfile(fixture.ProfileSpec{})
	proxy := s.UseProxy()
	m := s.storage(3, lab.VolumeOptions{})
	s.run(flag)
	c.shows("after the start", "clientmountd_up 1", "clientmountd_api_connected 1", `clientmountd_build_info\{version=".+"\} 1`, "clientmountd_start_time_seconds [0-9.]{10,}")

	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Exit: 32, Stderr: "no route"}))
	s.Mount("one", m)
	s.failed("one", "Major", "no route")
	c.shows("after a failure", c.state("failed", 1), c.state("mounted", 0), `clientmountd_step_failures_total\{step="mount"\} [1-9][0-9]*`, `clientmountd_failed_attempts_total\{reason="other"\} [1-9][0-9]*`)
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	c.shows("after the mount", c.state("mounted", 1), c.state("failed", 0), `clientmountd_step_duration_seconds_count\{step="mount"\} [1-9][0-9]*`, `clientmountd_step_last_duration_seconds\{step="mount"\} 0\.[0-9]+`)

	proxy.Refuse()
	c.shows("during an outage", "clientmountd_api_connected 0", "clientmountd_api_outages_total 1", "clientmountd_api_reconnects_total 0", c.state("mounted", 1))
	s.sick(mountstate.CauseAPI, mountstate.ActionWait, "API server not reached for ")
	s.late("two", mountstate.Mounted, "ClientMount two has not arrived on this node; API server not reached for ")
	s.Must(proxy.Accept())
	c.shows("after the outage", "clientmountd_api_connected 1", "clientmountd_api_outages_total 1", "clientmountd_api_reconnects_total 1")

	s.stops()
	c.shows("after the stop", "clientmountd_up 0", "clientmountd_api_connected 0", c.state("mounted", 1))
	s.vanish("one")
	s.run(flag)
	c.shows("of an orphan", "clientmountd_up 1", c.state("orphan", 1), c.state("mounted", 0))
	s.stops()
	s.run(flag, "--orphans=unmount")
	c.shows("of an unmounted orphan", "clientmountd_up 1", `clientmountd_step_duration_seconds_count\{step="unmount"\} 1`)
	s.unmounted(m)

	if !s.k.file {
		s.MountAndWait("two", m)
		h, err := s.Busy(lab.HoldCWD, m.Path)
		s.Must(err)
		s.Want("two", "unmounted")
		c.shows("of a busy mount", c.state("busy", 1), c.state("mounted", 0), `clientmountd_failed_attempts_total\{reason="busy"\} [1-9][0-9]*`)
		s.Must(h.Release())
		s.Await("two", "unmounted")
		c.shows("after the unmount", c.state("busy", 0), c.state("mounted", 0), c.state("unmounting", 0))
		s.Delete("two")
	}
	s.ends()
	c.left()
	s.t.Run("promtool", func(t *testing.T) {
		require.Tool(t, "promtool")
		for situation, text := range c.texts {
			cmd := exec.Command("promtool", "check", "metrics")
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: promtool check metrics: %v\n%s\nin\n%s", situation, err, out, text)
			}
		}
	})
}

// left checks that the directory contains only the file, which all users can read.
func (c *collector) left() {
	c.Helper()
	entries, err := os.ReadDir(c.dir)
	c.Must(err)
	if len(entries) != 1 {
		c.Errorf("the directory of the collector has %v", entries)
	}
	info, err := os.Lstat(c.file)
	c.Must(err)
	if info.Mode() != 0o644 {
		c.Errorf("mode %v", info.Mode())
	}
}

// metricsWrites counts the writes with inotify: four for the life of a ClientMount whose mount and
// unmount take more than a second, none while the daemon is idle.
func metricsWrites(s *env) {
	c, flag := s.collect()
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.run(flag)
	c.shows("after the start", "clientmountd_up 1", "clientmountd_api_connected 1")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	s.Must(err)
	defer unix.Close(fd)
	// The creation of the new file separates two renames, which would be one event otherwise.
	_, err = unix.InotifyAddWatch(fd, c.dir, unix.IN_MOVED_TO|unix.IN_CREATE)
	s.Must(err)
	renamed := func() (n int) {
		buffer := make([]byte, 4096)
		for {
			size, err := unix.Read(fd, buffer)
			if err == unix.EAGAIN {
				return n
			}
			s.Must(err)
			for rest := buffer[:size]; len(rest) > 0; {
				if binary.NativeEndian.Uint32(rest[4:])&unix.IN_MOVED_TO != 0 {
					n++
				}
				rest = rest[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(rest[12:]):]
			}
		}
	}
	for _, tool := range []string{"mount", "umount"} {
		s.Must(s.Fault(tool, lab.Fault{Match: m.Path, Times: 1, Delay: 1200e6}))
	}
	s.MountAndWait("one", m)
	c.shows("after the mount", c.state("mounted", 1))
	s.Delete("one")
	c.shows("after the unmount", c.state("mounted", 0), c.state("unmounting", 0))
	wait.Pass(s.t, 3e9, "writes although nothing changes")
	if n := renamed(); n != 4 {
		s.Errorf("%d writes, want 4", n)
	}
	s.ends()
}
