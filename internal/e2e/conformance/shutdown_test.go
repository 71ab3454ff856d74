package conformance

import (
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var shutdownBehaviours = []behaviour{
	{"TERM during a mount", nil, termDuringMount},
	{"TERM during an unmount", nil, termDuringUnmount},
	{"TERM during a command that hangs", xfsOnly, termDuringHang},
	{"TERM between retries", xfsOnly, termBetweenRetries},
}

// termDuringMount: the running command ends, mounts are not touched, and the
// next daemon goes on where this one stopped.
func termDuringMount(s *scene) {
	m := s.ready()
	reached, open := s.gate("mount", lab.Fault{Match: m.Path, Times: 1})
	s.Mount("one", m)
	reached()
	s.must(s.d.Term())
	_, err := s.d.WaitNotice(s.Context(patience), "STOPPING=1")
	s.must(err)
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

func (s *scene) exits(want int) {
	s.Helper()
	if code, err := s.d.Wait(s.Context(patience)); code != want || err != nil {
		s.Fatalf("exit code %d, want %d: %v", code, want, err)
	}
}

// termDuringUnmount: an unmount that is the last step is also published; in
// any case the next daemon ends what was begun.
func termDuringUnmount(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	reached, open := s.gate("umount", lab.Fault{Match: m.Path, Times: 1})
	s.Want("one", "unmounted")
	reached()
	s.must(s.d.Term())
	open()
	s.exits(0)
	o := s.get("one")
	if done := !s.k.lvm; o.Ready("unmounted") != done {
		s.Errorf("status after the stop: %v", o["status"])
	}
	if o.Ready("mounted") {
		s.Errorf("the object still says that it is mounted: %v", o["status"])
	}
	s.run()
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// termDuringHang: the shutdown time bounds it, whatever the command's limit.
func termDuringHang(s *scene) {
	m := s.ready("--shutdown-timeout=1s", "--command-timeout=1h")
	s.must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Mount("one", m)
	_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool { return c.Tool == "mount" && c.Exit == -1 })
	s.must(err)
	began := time.Now()
	s.must(s.d.Term())
	if _, err := s.d.Wait(s.Context(patience)); err != nil {
		s.Fatal(err)
	}
	if d := time.Since(began); d < 900*time.Millisecond {
		s.Errorf("the command had only %v", d)
	}
	s.run()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// termBetweenRetries: a daemon that waits has nothing to wait for, and the
// error that it published stays.
func termBetweenRetries(s *scene) {
	m := s.ready()
	s.must(s.Fault("mount", lab.Fault{Match: m.Path, Exit: 32, Stderr: "told to fail"}))
	s.Mount("one", m)
	s.failed("one", "Major", "told to fail")
	s.stops()
	if o := s.get("one"); o.Severity() != "Major" {
		s.Errorf("status %v", o["status"])
	}
	s.must(s.ClearFaults())
	s.run()
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}
