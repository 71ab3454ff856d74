package conformance

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var managerBehaviours = []behaviour{
	{"service manager is notified", nil, serviceManager},
	{"ready only after the first list", xfsOnly, readyLate},
	{"watchdog while a mount hangs", xfsOnly, watchdog},
	{"reload", xfsOnly, reload},
}

// serviceManager: READY after the first list, STATUS in words.
func serviceManager(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	status := func(text string) {
		s.Helper()
		if _, err := s.d.WaitNotice(s.Context(patience), "STATUS="+text); err != nil {
			var all []string
			for _, n := range s.d.Notices() {
				all = append(all, n.Text)
			}
			s.Errorf("no STATUS %q: %v; got %q", text, err, all)
		}
	}
	status("1 mount ready for 1 ClientMount; API server answers")
	s.Must(s.Fault("umount", lab.Fault{Match: m.Path, Exit: 32, Stderr: "injected failure"}))
	s.Want("one", "unmounted")
	status("0 mounts ready for 1 ClientMount, 1 failing; API server answers")
	s.Must(s.ClearFaults())
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

// readyLate: READY follows the first list, however late it is.
func readyLate(s *env) {
	const late = 700 * time.Millisecond
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.Mount("one", m)
	proxy := s.UseProxy()
	proxy.Set(lab.Rule{Class: lab.ClassList, Delay: late})
	proxy.Set(lab.Rule{Class: lab.ClassWatch, Delay: late})
	s.run()
	took, err := s.d.WaitReady(s.Context(patience))
	s.Must(err)
	if took < late {
		s.Errorf("ready after %v, before the first list", took)
	}
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// watchdog: pings depend on the loop, which a hanging mount does not block.
func watchdog(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.with(lab.Spec{Watchdog: 400 * time.Millisecond})
	reached, open := s.barrier("mount", lab.Fault{Match: m.Path, Times: 1})
	s.Mount("one", m)
	reached()
	seen := len(s.d.Notices())
	wait.Until(s.t, "three pings", func() bool {
		pings := 0
		for _, n := range s.d.Notices()[seen:] {
			if _, ok := n.Value("WATCHDOG"); ok {
				pings++
			}
		}
		return pings >= 3
	})
	open()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// reload: SIGHUP applies the settings that can be reloaded, and an invalid file changes
// nothing.
func reload(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	config := s.Runtime + "-config.toml"
	write := func(text string) {
		s.Helper()
		s.Must(os.WriteFile(config, []byte(text), 0o600))
		s.Must(s.d.Hup())
	}
	s.Must(os.WriteFile(config, []byte("version = 1\n[mount]\ncommand_timeout = \"1h\"\n"), 0o600))
	s.run("--config=" + config)
	s.MountAndWait("one", m)
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
		return f["msg"] == "configuration reloaded" && strings.Contains(changed, "mount.command_timeout") && strings.Contains(changed, "log.level")
	})
	s.Must(s.Fault("umount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "command: umount", "time limit") // of one second instead of an hour
	s.Await("one", "unmounted")
	if debug() == 0 {
		s.Errorf("no debug lines after the reload")
	}

	write("version = 1\n[mount]\ncommand_timeut = \"1h\"\n")
	f := s.line("about the refusal", func(f map[string]any) bool { return f["level"] == "ERROR" })
	for _, part := range []string{config + ":3", "command_timeut", "command_timeout"} {
		if !strings.Contains(fmt.Sprint(f["error"]), part) {
			s.Errorf("no %s in the error: %v", part, f)
		}
	}
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
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

var shutdownBehaviours = []behaviour{
	{"TERM during a mount", nil, termDuringMount},
	{"TERM during an unmount", nil, termDuringUnmount},
	{"TERM during a command that hangs", xfsOnly, termDuringHang},
	{"TERM between retries", xfsOnly, termBetweenRetries},
}

// termDuringMount: the running command finishes, mounts are not touched, and the next
// daemon continues where this one stopped.
func termDuringMount(s *env) {
	m := s.ready()
	reached, open := s.barrier("mount", lab.Fault{Match: m.Path, Times: 1})
	s.Mount("one", m)
	reached()
	s.Must(s.d.Term())
	_, err := s.d.WaitNotice(s.Context(patience), "STOPPING=1")
	s.Must(err)
	select {
	case <-s.d.Done():
		s.Fatal("the daemon did not wait for the mount")
	case <-time.After(300 * time.Millisecond):
	}
	open()
	s.exits(0)
	s.mounted(m)
	s.run()
	s.Await("one", "mounted")
	s.mounted(m)
	n := 0
	for _, c := range s.commands() {
		if strings.HasPrefix(c, "mount ") {
			n++
		}
	}
	if n != 1 {
		s.Errorf("mount was called %d times", n)
	}
	s.Delete("one")
	s.ends()
}

func (s *env) exits(want int) {
	s.Helper()
	if code, err := s.d.Wait(s.Context(patience)); code != want || err != nil {
		s.Fatalf("exit code %d, want %d: %v", code, want, err)
	}
}

// termDuringUnmount: if the unmount is the last step, its status is published. In any case
// the next daemon completes it.
func termDuringUnmount(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	reached, open := s.barrier("umount", lab.Fault{Match: m.Path, Times: 1})
	s.Want("one", "unmounted")
	reached()
	s.Must(s.d.Term())
	open()
	s.exits(0)
	o := s.get("one")
	if done := !s.k.lvm; o.Ready("unmounted") != done {
		s.Errorf("status after the stop: %v", o["status"])
	}
	if o.Ready("mounted") {
		s.Errorf("the status is still mounted: %v", o["status"])
	}
	s.run()
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// termDuringHang: the stop takes at most the shutdown timeout, whatever the time limit of
// the command is.
func termDuringHang(s *env) {
	m := s.ready("--shutdown-timeout=1s", "--command-timeout=1h")
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Mount("one", m)
	_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool { return c.Tool == "mount" && c.Exit == -1 })
	s.Must(err)
	began := time.Now()
	s.Must(s.d.Term())
	if _, err := s.d.Wait(s.Context(patience)); err != nil {
		s.Fatal(err)
	}
	if d := time.Since(began); d < 900*time.Millisecond {
		s.Errorf("the command was killed after only %v", d)
	}
	s.run()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// termBetweenRetries: between two retries the daemon stops immediately, and the published
// error stays.
func termBetweenRetries(s *env) {
	m := s.ready()
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Exit: 32, Stderr: "injected failure"}))
	s.Mount("one", m)
	s.failed("one", "Major", "injected failure")
	s.stops()
	if o := s.get("one"); o.Severity() != "Major" {
		s.Errorf("status %v", o["status"])
	}
	s.Must(s.ClearFaults())
	s.run()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

var namespaceBehaviours = []behaviour{
	{"private mount namespace is refused", xfsOnly, ownNamespace},
	{"private mount namespace, allowed", xfsOnly, ownNamespaceAllowed},
	{"mount namespace of process 1", xfsOnly, sameNamespace},
}

// apart runs the daemon in a private mount namespace, whose mounts no other process sees,
// like a unit with ProtectSystem= or a similar setting.
func (s *env) apart(flags ...string) lab.Spec {
	return lab.Spec{Wrap: []string{"unshare", "--mount", "--propagation", "slave"}, Args: flags}
}

// ownNamespace: every mount would succeed, but no job would see it. So the daemon exits
// with an error and is never ready.
func ownNamespace(s *env) {
	d := s.Launch(s.apart("--mount-namespace=host"))
	if code, err := d.Wait(s.Context(patience)); err != nil || code != 1 {
		s.Errorf("exit code %d (%v), want 1", code, err)
	}
	for _, n := range d.Notices() {
		if _, ok := n.Value("READY"); ok {
			s.Errorf("READY in a private mount namespace")
		}
	}
	log := d.Log()
	if len(log) == 0 {
		s.Fatal("no log lines")
	}
	f := log[len(log)-1].Fields
	text, _ := f["msg"].(string)
	hint, _ := f["hint"].(string)
	if f["level"] != "ERROR" || f["event"] != "mount-namespace" || !strings.Contains(text, "not visible to the host") ||
		!strings.Contains(hint, "Private…=") || !strings.Contains(hint, "daemon.mount_namespace") {
		s.Errorf("the log line is %v", f)
	}
	s.noRecords()
}

// ownNamespaceAllowed: for example in a container.
func ownNamespaceAllowed(s *env) {
	s.d = s.StartDaemon(s.apart("--mount-namespace=any"))
	s.stops()
}

// sameNamespace: process 1 of the lab corresponds to init of a host.
func sameNamespace(s *env) {
	s.with(lab.Spec{Args: []string{"--mount-namespace=host"}})
	s.stops()
}
