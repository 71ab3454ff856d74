package clientmount

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

var errBusy = &node.CommandError{Line: "umount " + testPath, Stderr: "umount: " + testPath + ": target is busy.\n", Err: node.ExitStatus(32)}

// busyLoop is a controller whose mount is busy.
type busyLoop struct {
	*loop
	started time.Time
	mu      sync.Mutex
	out     bytes.Buffer // the log
	sent    []string     // signals, with the time since started
}

func (b *busyLoop) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *busyLoop) logged(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.out.String(), text)
}

// signals returns the signals since the last call.
func (b *busyLoop) signals() []string {
	b.machine.mu.Lock()
	defer b.machine.mu.Unlock()
	sent := b.sent
	b.sent = nil
	return sent
}

func (b *busyLoop) signalled(pid int, sig unix.Signal) {
	b.sent = append(b.sent, fmt.Sprintf("%v %s %d", time.Since(b.started).Round(time.Second), unix.SignalName(sig), pid))
}

func person(pid int) node.Holder {
	return node.Holder{PID: pid, Start: "77", UID: 1001, Command: "vim", Kind: "cwd", Path: testPath}
}

// runBusy runs a test with a mount that is used by processes and is to be unmounted.
func runBusy(t *testing.T, o Busy, users []node.Holder, test func(t *testing.T, b *busyLoop)) {
	t.Helper()
	f := newFixture(t, dws.TypeXFS)
	b := &busyLoop{}
	f.runLoop(t, func(options *Options) {
		options.Limits.Busy = o
		options.Log = slog.New(slog.NewTextHandler(b, nil))
	}, func(t *testing.T, l *loop) {
		b.loop, b.started = l, time.Now()
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.machine.users, l.machine.signalled = slices.Clone(users), b.signalled
		l.machine.fail["umount"] = errBusy
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		test(t, b)
	})
}

func (b *busyLoop) expectSignals(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := b.signals(); !slices.Equal(got, want) {
		t.Errorf("%s: signals %q, want %q", when, got, want)
	}
}

func (b *busyLoop) unmountedAfter(t *testing.T, most time.Duration) {
	t.Helper()
	for began := time.Now(); b.machine.mounted(testPath); wait.Advance(10 * time.Millisecond) {
		if time.Since(began) > most {
			t.Fatalf("not unmounted after %v", most)
		}
	}
}

// With the default, no process gets a signal.
func TestBusyReport(t *testing.T) {
	for _, policy := range []BusyPolicy{"", BusyReport, "unknown"} {
		runBusy(t, Busy{Policy: policy}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
			wait.Advance(time.Hour)
			b.expectSignals(t, "report")
			if b.logged("not-signalled") > 0 || b.logged("mount is in use") != 1 {
				t.Errorf("log:\n%s", &b.out)
			}
		})
	}
}

// The process gets SIGTERM when the grace has passed, not at the next usual retry, and the
// mount is unmounted as soon as the process has exited.
func TestBusyTerminate(t *testing.T) {
	runBusy(t, Busy{Policy: BusyTerminate, Grace: 20 * time.Second}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		wait.Advance(19900 * time.Millisecond)
		b.expectSignals(t, "during the grace")
		wait.Advance(200 * time.Millisecond)
		b.expectSignals(t, "after the grace", "20s SIGTERM 4242")
		wait.Advance(3 * time.Second)
		b.machine.mu.Lock()
		b.machine.leave(4242)
		b.machine.mu.Unlock()
		b.unmountedAfter(t, 50*time.Millisecond)
		if b.logged("sent a signal to a process") != 1 {
			t.Errorf("log:\n%s", &b.out)
		}
		for _, field := range []string{
			"event=signalled", "holder_pid=4242", "holder_uid=1001", "holder_command=vim", "signal=SIGTERM", "mount_path=" + testPath,
			"clientmount=default-job7-0-computes", `reason="mount.busy is \"terminate\", and the mount has been busy for 20s"`,
		} {
			if b.logged(field) == 0 {
				t.Errorf("the log does not have %s:\n%s", field, &b.out)
			}
		}
		if st := b.server.object().Status; st.Error != nil || !st.AllReady {
			t.Errorf("status %s", describe(&st))
		}
	})
}

// A process that ignores SIGTERM gets it once. The retries return to their usual pauses.
func TestBusyTerminateIgnored(t *testing.T) {
	runBusy(t, Busy{Policy: BusyTerminate}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		wait.Advance(10 * time.Minute)
		b.expectSignals(t, "ignored", "0s SIGTERM 4242")
		b.machine.done()
		wait.Advance(10 * time.Minute)
		commands := 0
		for _, line := range b.machine.done() {
			if strings.HasPrefix(line, "umount") {
				commands++
			}
		}
		if commands < 18 || commands > 26 { // every 24 to 30 s
			t.Errorf("%d unmount commands in 10 minutes", commands)
		}
		// Another process gets the signal, also one with the same pid.
		other := person(4242)
		other.Start = "78"
		b.machine.mu.Lock()
		b.machine.users = append(b.machine.users, other, person(4243))
		b.machine.mu.Unlock()
		wait.Advance(time.Minute)
		if got := b.signals(); len(got) != 2 || !strings.HasSuffix(got[0], "SIGTERM 4242") || !strings.HasSuffix(got[1], "SIGTERM 4243") {
			t.Errorf("signals %q", got)
		}
	})
}

// kill: a process that still uses the mount after a second grace gets SIGKILL once, and
// the others do not.
func TestBusyKill(t *testing.T) {
	for grace, second := range map[time.Duration]time.Duration{20 * time.Second: 40 * time.Second, time.Second: 6 * time.Second, 0: 5 * time.Second} {
		t.Run(grace.String(), func(t *testing.T) {
			runBusy(t, Busy{Policy: BusyKill, Grace: grace}, []node.Holder{person(4242), person(4243)}, func(t *testing.T, b *busyLoop) {
				b.machine.mu.Lock()
				b.machine.signalled = func(pid int, sig unix.Signal) {
					b.signalled(pid, sig)
					if pid == 4243 || sig == unix.SIGKILL {
						b.machine.leave(pid)
					}
				}
				b.machine.mu.Unlock()
				wait.Advance(second + time.Second)
				got := b.signals()
				if grace == 0 { // the first signals precede the change of the fake
					got = append([]string{"0s SIGTERM 4242", "0s SIGTERM 4243"}, slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "SIGTERM") })...)
				}
				want := []string{fmt.Sprintf("%v SIGTERM 4242", grace), fmt.Sprintf("%v SIGTERM 4243", grace), fmt.Sprintf("%v SIGKILL 4242", second)}
				if grace == 0 {
					want = append(want, fmt.Sprintf("%v SIGKILL 4243", second))
				}
				if !slices.Equal(got, want) {
					t.Errorf("signals %q, want %q", got, want)
				}
				b.unmountedAfter(t, time.Second)
			})
		})
	}
}

// A process that survives SIGKILL, because the kernel waits for a device, gets no further
// signal.
func TestBusyKillSurvived(t *testing.T) {
	runBusy(t, Busy{Policy: BusyKill, Grace: 10 * time.Second}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		wait.Advance(time.Hour)
		b.expectSignals(t, "survived", "10s SIGTERM 4242", "20s SIGKILL 4242")
	})
}

// A process that may not be signalled is reported once, and again if the reason changes. It
// does not protect the others.
func TestBusySpared(t *testing.T) {
	root := person(4241)
	root.UID = 0
	runBusy(t, Busy{Policy: BusyTerminate, Grace: time.Second}, []node.Holder{root, person(4242)}, func(t *testing.T, b *busyLoop) {
		wait.Advance(10 * time.Minute)
		b.expectSignals(t, "a process of root", "1s SIGTERM 4242")
		if n := b.logged(`reason="it belongs to root"`); n != 1 || b.logged("event=not-signalled") != 1 {
			t.Errorf("logged %d times:\n%s", n, &b.out)
		}
	})
	runBusy(t, Busy{Policy: BusyTerminate, Grace: time.Second}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		b.machine.mu.Lock()
		b.machine.fail["signal"] = errors.New("no permission")
		b.machine.mu.Unlock()
		wait.Advance(time.Minute)
		b.machine.mu.Lock()
		delete(b.machine.fail, "signal")
		b.machine.mu.Unlock()
		wait.Advance(time.Minute)
		if got := b.signals(); len(got) < 2 || b.logged("event=not-signalled") != 1 || b.logged("event=signalled") != 1 {
			t.Errorf("signals %q, log:\n%s", got, &b.out)
		}
	})
}

// Without the lowest user ID, or without a complete search, no process gets a signal, and
// the reason is logged once.
func TestBusyUnknown(t *testing.T) {
	for fails, reason := range map[string]string{
		"login.defs": "cannot determine which users are ordinary users: UID_MIN: x", "users": "UID_MIN: x",
	} {
		t.Run(fails, func(t *testing.T) {
			runBusy(t, Busy{Policy: BusyKill, Grace: time.Second}, nil, func(t *testing.T, b *busyLoop) {
				b.machine.mu.Lock()
				b.machine.fail[fails] = errors.New("UID_MIN: x")
				b.machine.mu.Unlock()
				wait.Advance(10 * time.Minute)
				b.expectSignals(t, fails)
				if n := b.logged(fmt.Sprintf("reason=%q", reason)); n != 1 {
					t.Errorf("logged %d times:\n%s", n, &b.out)
				}
			})
		})
	}
	runBusy(t, Busy{Policy: BusyTerminate, MinUID: 1002}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		b.machine.mu.Lock()
		b.machine.fail["login.defs"] = errors.New("not read with mount.busy_min_uid")
		b.machine.mu.Unlock()
		wait.Advance(time.Minute)
		b.expectSignals(t, "mount.busy_min_uid")
		if b.logged("event=not-signalled") != 1 || b.logged("not read") > 0 {
			t.Errorf("log:\n%s", &b.out)
		}
	})
}

// Very many processes get their signals in several attempts, which follow each other
// quickly. An endless number of processes does not cause an endless number of records.
func TestBusyCrowd(t *testing.T) {
	var crowd []node.Holder
	for i := range 3 * mostSignals {
		crowd = append(crowd, person(5000+i))
	}
	ends := func(b *busyLoop, more bool) {
		pid := 10000
		b.machine.mu.Lock()
		defer b.machine.mu.Unlock()
		b.machine.signalled = func(old int, sig unix.Signal) {
			b.signalled(old, sig)
			if more {
				pid++
				b.machine.users = append(b.machine.users, person(pid))
			}
			b.machine.leave(old)
		}
	}
	o := Busy{Policy: BusyTerminate, Grace: time.Second}
	runBusy(t, o, crowd, func(t *testing.T, b *busyLoop) {
		ends(b, false)
		wait.Advance(time.Second + 3*quickPause)
		if n := len(b.signals()); n != len(crowd) {
			t.Errorf("%d signals", n)
		}
		b.unmountedAfter(t, time.Second)
	})
	runBusy(t, o, crowd, func(t *testing.T, b *busyLoop) {
		ends(b, true)
		wait.Advance(10 * time.Minute)
		if n := len(b.signals()); n > quickSignals+25*mostSignals {
			t.Errorf("%d signals", n)
		}
		wait.Advance(10 * time.Minute)
		if n := len(b.signals()); n > 26*mostSignals || n == 0 {
			t.Errorf("%d signals in 10 minutes", n)
		}
	})
}

// The grace starts again when the file system is to be mounted in the meantime.
func TestBusyMountedAgain(t *testing.T) {
	runBusy(t, Busy{Policy: BusyTerminate, Grace: 30 * time.Second}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		wait.Advance(25 * time.Second)
		b.want(dws.Mounted)
		b.Upsert(b.server.object())
		wait.Advance(time.Hour)
		b.expectSignals(t, "mounted")
		b.want(dws.Unmounted)
		b.Upsert(b.server.object())
		wait.Advance(29 * time.Second)
		b.expectSignals(t, "during the second grace")
		wait.Advance(2 * time.Second)
		if got := b.signals(); len(got) != 1 {
			t.Errorf("after the second grace: %q", got)
		}
	})
}

// A change of the object ends the wait for processes.
func TestBusyWaitIsInterrupted(t *testing.T) {
	runBusy(t, Busy{Policy: BusyTerminate}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		b.expectSignals(t, "at once", "0s SIGTERM 4242")
		b.want(dws.Mounted)
		b.Upsert(b.server.object())
		synctest.Wait()
		if st := b.server.object().Status; st.Error != nil || !st.AllReady || st.Mounts[0].State != dws.Mounted {
			t.Errorf("status %s", describe(&st))
		}
	})
	runBusy(t, Busy{Policy: BusyTerminate}, []node.Holder{person(4242)}, func(t *testing.T, b *busyLoop) {
		began := time.Now()
		if err := b.stop(); err != nil || time.Since(began) > 0 {
			t.Errorf("stopping took %v: %v", time.Since(began), err)
		}
	})
}

// The policy also applies to the mounts of a deleted ClientMount, whose record is read
// again for each attempt.
func TestBusyOrphan(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.users, f.machine.fail["umount"] = []node.Holder{person(4242)}, errBusy
	b := &busyLoop{}
	f.machine.signalled = b.signalled
	f.runLoop(t, func(o *Options) {
		o.Orphans, o.Limits.Busy = OrphansUnmount, Busy{Policy: BusyKill, Grace: 20 * time.Second}
	}, func(t *testing.T, l *loop) {
		b.loop, b.started = l, time.Now()
		l.Replace(nil)
		wait.Advance(time.Minute)
		b.expectSignals(t, "orphan", "20s SIGTERM 4242", "40s SIGKILL 4242")
	})
}

// The policy also applies to a mount that the object no longer lists.
func TestBusyObsolete(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	b := &busyLoop{}
	f.runLoop(t, func(o *Options) { o.Limits.Busy = Busy{Policy: BusyTerminate, Grace: 20 * time.Second} }, func(t *testing.T, l *loop) {
		b.loop, b.started = l, time.Now()
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.machine.users, l.machine.signalled = []node.Holder{person(4242)}, b.signalled
		l.machine.fail["umount "+testPath] = errBusy
		l.edit(at("/mnt/nnf/elsewhere"))
		l.Upsert(l.server.object())
		wait.Advance(30 * time.Second)
		b.expectSignals(t, "obsolete", "20s SIGTERM 4242")
	})
}
