package vm

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// A volume without a file system: one record with its explanation, however
// often it is tried; and when somebody makes one, it goes on by itself.
func failed(t *testing.T) {
	s := newSite(t, "empty")
	s.ask(nil)
	o := s.await("failed", func(o lab.Object) bool { return o.Severity() != "" })
	if text := o.DebugMessage(); !strings.Contains(text, "unable to mount file system") {
		t.Errorf("the status says %q", text)
	}
	// One try looks several times.
	s.Machine.Await("it is tried again", `n=$(dmesg | grep -c 'Invalid superblock magic number'); [ -e /run/tries ] || echo $n >/run/tries; [ $n -gt $((3 * $(cat /run/tries))) ]`)
	if records := s.journal("EVENT=failed"); strings.Count(records, "\n") != 0 || records == "" {
		t.Errorf("the journal has not one record of the failure: %s", records)
	}
	text := s.journal("-x -o short")
	for _, part := range []string{
		"ClientMount failed", "Subject: ClientMount empty failed; it is tried again", "Documentation: man:clientmountd(8)",
		"For the job: The job of workflow job7 waits.", "What to do: HINT names",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("journalctl -x has no %q in\n%s", part, text)
		}
	}
	if hint := s.Do("journalctl -b -q -o json -u clientmountd CLIENTMOUNT=empty EVENT=failed | jq -r .HINT"); len(hint) < 10 {
		t.Errorf("the record's hint is %q", hint)
	}
	s.Do(mkfsXFS + " " + s.mapped(0))
	s.mounted()
	s.release()
	s.unmounted()
	s.noTargets()
}

// The daemon dies in the middle of a mount; the next one brings it to its end.
func killed(t *testing.T) {
	s := newSite(t, "xfs")
	s.ask(world.Hooks{"preMount": {"echo $$ >>/run/hook; sleep 5"}})
	s.Machine.Await("the hook runs", "[ -s /run/hook ]")
	s.Do("kill -KILL $(systemctl show --value -p MainPID clientmountd)")
	s.mounted()
	if n := s.Do("findmnt -n -l -o TARGET | grep -c '^" + s.path(0) + "$'"); n != "1" {
		t.Errorf("mounted %s times", n)
	}
	s.release()
	s.unmounted()
	s.noTargets()
}
