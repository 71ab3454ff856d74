package conformance

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var managerBehaviours = []behaviour{
	{"service manager is told", nil, serviceManager},
	{"ready only when the objects are known", xfsOnly, readyLate},
	{"watchdog while a mount hangs", xfsOnly, watchdog},
	{"reload", xfsOnly, reload},
}

// serviceManager: READY after the objects are known, STATUS in words.
func serviceManager(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	status := func(text string) {
		s.Helper()
		if _, err := s.d.WaitNotice(s.Context(patience), "STATUS="+text); err != nil {
			var all []string
			for _, n := range s.d.Notices() {
				all = append(all, n.Text)
			}
			s.Errorf("no STATUS %q: %v; there was %q", text, err, all)
		}
	}
	status("1 mount ready for 1 ClientMount; API server answers")
	s.must(s.Fault("umount", lab.Fault{Match: m.Path, Exit: 32, Stderr: "told to fail"}))
	s.Want("one", "unmounted")
	status("0 mounts ready for 1 ClientMount, 1 failing; API server answers")
	s.must(s.ClearFaults())
	s.Await("one", "unmounted")
	s.Delete("one")
	status("0 mounts ready for 0 ClientMounts; API server answers")
	s.stops()
	last := ""
	for _, n := range s.d.Notices() {
		if _, ok := n.Value("READY"); ok && last == "STOPPING" {
			s.Errorf("READY after STOPPING")
		}
		if _, ok := n.Value("STOPPING"); ok {
			last = "STOPPING"
		}
	}
	if last != "STOPPING" {
		s.Errorf("no STOPPING=1")
	}
	s.NothingLeft()
	s.noRecords()
}

// readyLate: READY waits for the list, however late that comes.
func readyLate(s *scene) {
	const late = 700 * time.Millisecond
	s.UseProfile(world.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.Mount("one", m)
	proxy := s.UseProxy()
	proxy.Set(lab.Rule{Class: lab.ClassList, Delay: late})
	proxy.Set(lab.Rule{Class: lab.ClassWatch, Delay: late})
	s.run()
	took, err := s.d.WaitReady(s.Context(patience))
	s.must(err)
	if took < late {
		s.Errorf("ready after %v, before anything could be known", took)
	}
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// watchdog: pings are tied to the loop, and a hanging mount does not stop it.
func watchdog(s *scene) {
	s.UseProfile(world.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.with(lab.Spec{Watchdog: 400 * time.Millisecond})
	reached, open := s.gate("mount", lab.Fault{Match: m.Path, Times: 1})
	s.Mount("one", m)
	reached()
	seen := len(s.d.Notices())
	deadline := time.Now().Add(patience)
	for pings := 0; pings < 3; time.Sleep(10 * time.Millisecond) {
		pings = 0
		for _, n := range s.d.Notices()[seen:] {
			if _, ok := n.Value("WATCHDOG"); ok {
				pings++
			}
		}
		if time.Now().After(deadline) {
			s.Fatalf("%d pings", pings)
		}
	}
	open()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// reload: SIGHUP takes over what may change, and refuses a bad file as a whole.
func reload(s *scene) {
	s.UseProfile(world.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	config := s.Runtime + "-config.toml"
	write := func(text string) {
		s.Helper()
		s.must(os.WriteFile(config, []byte(text), 0o600))
		s.must(s.d.Hup())
	}
	s.must(os.WriteFile(config, []byte("version = 1\n[mount]\ncommand_timeout = \"1h\"\n"), 0o600))
	s.run("--config=" + config)
	s.Mount("one", m)
	s.Await("one", "mounted")
	debug := func() int {
		n := 0
		for _, l := range s.d.Log() {
			if l.Fields["level"] == "DEBUG" {
				n++
			}
		}
		return n
	}
	if n := debug(); n > 0 {
		s.Errorf("%d debug lines before", n)
	}
	write("version = 1\n[mount]\ncommand_timeout = \"1s\"\n[log]\nlevel = \"debug\"\n")
	s.line("about the reload", func(f map[string]any) bool {
		changed, _ := f["changed"].(string)
		return f["msg"] == "configuration read again" && strings.Contains(changed, "mount.command_timeout") && strings.Contains(changed, "log.level")
	})
	s.must(s.Fault("umount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "command: umount", "time limit") // of one second, no longer an hour
	s.Await("one", "unmounted")
	if debug() == 0 {
		s.Errorf("no debug lines after the reload")
	}

	write("version = 1\n[mount]\ncommand_timeut = \"1h\"\n")
	f := s.line("about the refusal", func(f map[string]any) bool { return f["level"] == "ERROR" })
	for _, part := range []string{config + ":3", "command_timeut", "command_timeout"} {
		if !strings.Contains(fmt.Sprint(f["error"]), part) {
			s.Errorf("the refusal does not name %s: %v", part, f)
		}
	}
	s.must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Want("one", "mounted")
	s.failed("one", "Major", "command: mount", "time limit") // still one second
	s.Await("one", "mounted")
	ready := 0
	for _, n := range s.d.Notices() {
		if strings.Contains(n.Text, "READY=1") {
			ready++
		}
	}
	if ready != 3 {
		s.Errorf("%d times READY=1, want one at the start and one after each reload", ready)
	}
	s.Delete("one")
	s.ends()
}
