package vm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// Offsets of the clock of the machine. The certificate of the API server is valid from an hour
// before the start of the test, for five years.
const (
	slightlyAhead = 10 * time.Minute
	yearsAhead    = 6 * 365 * 24 * time.Hour
	yearsBehind   = -10 * 365 * 24 * time.Hour
)

// Bounds of the attempts to connect. Before the nth one, the daemon waits for at least
// 0.4 * 2^(n-2) s, and at most 12 s.
const (
	observed   = 5 // for how many seconds a failing daemon is watched
	mostFirst  = 6 // attempts in the first 10 s
	leastPause = 6 // seconds between later ones
	// perAttempt is the number of connections: that of the daemon, and that of the forwarder in the
	// machine.
	perAttempt = 2
)

// clockReads precedes the time in the explanation in the journal.
const clockReads = "the clock of this node reads "

// clock sets the clock of the machine.
type clock struct {
	*machine.Machine
	booted int // Unix time of the boot, by the right clock
}

func newClock(m *machine.Machine) *clock {
	return &clock{m, number(m, "echo $(($(date +%s) - $(cut -d. -f1 /proc/uptime)))")}
}

// set sets the clock to the right time plus the offset.
func (c *clock) set(offset time.Duration) {
	c.Do(fmt.Sprintf("date -s @$((%d + $(cut -d. -f1 /proc/uptime)))", c.booted+int(offset/time.Second)))
}

// number returns the number that a script prints.
func number(m *machine.Machine, script string) int {
	text := m.Do(script)
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		panic(fmt.Sprintf("%s prints %q", script, text))
	}
	return n
}

// connections returns how many connections the processes of the machine have opened since its boot.
func connections(m *machine.Machine) int {
	return number(m, opened)
}

// opened prints the number of connections (ActiveOpens of RFC 4022).
const opened = `awk '$1 == "Tcp:" && ++n == 2 { print $6 }' /proc/net/snmp`

// A node whose clock is wrong. The watch continues, and so do mounts. A new connection fails if the
// certificate of the API server is not valid at that time: the daemon reports this once, keeps the
// mounts, and retries with pauses until the clock is right.
func wrongClock(t *testing.T) {
	m := node(t)
	right := newClock(m)
	t.Cleanup(func() { right.set(0) })
	kept, other := newSite(t, "xfs"), newSite(t, "raw")
	var mount string // its ID in the mount table
	keep := func() {
		kept.requestMounts(nil)
		kept.mounted()
		mount = kept.Do("findmnt -n -o ID " + kept.path(0))
	}
	restarts := m.Property("clientmountd", "NRestarts")

	// works sets the clock while the daemon runs, and mounts and unmounts another ClientMount.
	works := func(offset time.Duration) {
		pid, before := m.Property("clientmountd", "MainPID"), connections(m)
		warnings := len(connectionWarnings(m))
		right.set(offset)
		other.requestMounts(nil)
		other.mounted()
		other.release()
		other.unmounted()
		if n := connections(m) - before; n != 0 {
			t.Errorf("the daemon opened %d connections", n)
		}
		if now := m.Property("clientmountd", "MainPID"); now != pid {
			t.Errorf("process %s has replaced process %s", now, pid)
		}
		if list := connectionWarnings(m); len(list) != warnings {
			t.Errorf("the journal has warnings about the connection: %q", list[warnings:])
		}
	}
	// fails restarts the daemon, which cannot connect.
	fails := func(offset time.Duration, text string) {
		before := connections(m)
		warnings, started := len(connectionWarnings(m)), number(m, "cut -d. -f1 /proc/uptime")
		m.Do("systemctl restart --no-block clientmountd")
		m.Await("the journal explains the failure", "journalctl --sync; journalctl -b -q -o cat -u clientmountd EVENT=api | grep -q '"+text+"'")
		kept.release() // has no effect yet
		m.Await("the daemon retries", fmt.Sprintf("[ $(cut -d. -f1 /proc/uptime) -ge %d ] && [ $(%s) -ge %d ]", started+observed, opened, before+2*perAttempt))
		attempts := (connections(m) - before) / perAttempt
		took := number(m, "cut -d. -f1 /proc/uptime") - started
		if attempts > mostFirst+took/leastPause {
			t.Errorf("%d attempts in %d s", attempts, took)
		}
		reports := connectionWarnings(m)[warnings:]
		if len(reports) != 1 {
			t.Fatalf("the journal should have one warning: %q", reports)
		}
		_, reads, _ := strings.Cut(reports[0], clockReads)
		reads, _, _ = strings.Cut(reads, ",")
		if at, err := time.Parse(time.RFC3339, reads); err != nil || time.Until(at.Add(-offset)).Abs() > time.Hour {
			t.Errorf("the clock reads %q: %q", reads, reports)
		}
		t.Logf("%d attempts in %d s: %q", attempts, took, reports)
		if now := m.Property("clientmountd", "NRestarts"); now != restarts {
			t.Errorf("systemd has restarted the daemon: %s times, before %s", now, restarts)
		}
		if now := kept.Do("findmnt -n -o ID " + kept.path(0)); now != mount {
			t.Errorf("mount %s has replaced mount %s", now, mount)
		}
		kept.holds()
	}
	// recovers sets the clock right. The same daemon unmounts.
	recovers := func() {
		pid := m.Property("clientmountd", "MainPID")
		right.set(0)
		kept.unmounted()
		if now := m.Property("clientmountd", "MainPID"); now != pid {
			t.Errorf("process %s has replaced process %s", now, pid)
		}
	}

	keep()
	works(slightlyAhead)
	works(yearsAhead)
	fails(yearsAhead, "but the certificate of the API server expired at 20")
	recovers()
	keep()
	works(yearsBehind)
	fails(yearsBehind, "but the certificate of the API server is valid only from 20")
	recovers()
}

// connectionWarnings returns the warnings of clientmountd about its connection in this boot.
func connectionWarnings(m *machine.Machine) []string {
	out := m.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -u clientmountd -p warning EVENT=api")
	return slices.Collect(strings.Lines(out))
}
