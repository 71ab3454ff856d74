package clientmount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// hung returns the error of a command that no signal can kill. This process replaces the
// command, because it keeps running.
func hung(line string) error {
	return &node.CommandError{Line: line, Err: errors.New("still running after SIGKILL"), TimedOut: true, PID: os.Getpid()}
}

// A command blocks others while its process runs, but not while another process has its
// pid.
func TestStuckTable(t *testing.T) {
	table := newStuckTable()
	if err := table.check("a", "b"); err != nil {
		t.Fatal(err)
	}
	table.add(os.Getpid(), "umount x", "a", "b")
	for _, key := range []string{"a", "b"} {
		err := table.check("other", key)
		if !errors.Is(err, node.ErrHangs) {
			t.Fatalf("%s: %v", key, err)
		}
		for _, text := range []string{fmt.Sprintf("pid %d,", os.Getpid()), `"umount x"`, "since 20", fmt.Sprintf("/proc/%d/stack", os.Getpid()), "reboot"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("no %q in %v", text, err)
			}
		}
	}
	if err := table.check("other"); err != nil {
		t.Error("another key is blocked: ", err)
	}
	table.by["a"] = []stuckCommand{{pid: os.Getpid(), start: "1", since: time.Now()}}
	if err := table.check("a"); err != nil {
		t.Error("blocked by another process with the same pid: ", err)
	}
	table.add(1<<30, "gone", "b", "c")
	if err := table.check("b"); err == nil || !strings.Contains(err.Error(), "umount x") {
		t.Errorf("not blocked by the one that still runs: %v", err)
	}
	if err := table.check("c"); err != nil {
		t.Error("blocked by a process that has exited: ", err)
	}
	table.by["d"] = []stuckCommand{{pid: 1 << 30, start: "1"}}
	if table.add(os.Getpid(), "x"); len(table.by) != 1 {
		t.Errorf("exited commands are kept: %v", table.by)
	}
}

// A hanging command blocks those of the same ClientMount, the same path, and LVM commands
// for the same volume group, but no others.
func TestGuardKeys(t *testing.T) {
	plan := func(path, vg string) []*plan.Plan { return []*plan.Plan{{Path: path, VG: vg}} }
	argv := func(words ...string) node.Command { return node.Command{Argv: words} }
	hook := node.Command{Shell: "do it"}
	mine := purpose{uid: "a", plans: plan("/mnt/a", "v")}
	independent := purpose{uid: "a", plans: plan("/mnt/a", "v"), independent: true}
	sameVG := purpose{uid: "b", plans: plan("/mnt/b", "v")}
	samePath := purpose{uid: "b", plans: plan("/mnt/a", "w")}
	other := purpose{uid: "b", plans: plan("/mnt/b", "w")}
	lustre, otherLustre := purpose{uid: "a", plans: plan("/mnt/a", "")}, purpose{uid: "b", plans: plan("/mnt/b", "")}
	for _, tt := range []struct {
		name    string
		hangs   node.Command
		of      purpose
		then    node.Command
		by      purpose
		refused bool
	}{
		{"the same again", argv("lvchange", "x"), mine, argv("lvchange", "x"), mine, true},
		{"a hook after lvchange", argv("lvchange", "x"), mine, hook, mine, true},
		{"umount after a hook", hook, mine, argv("umount", "/mnt/a"), mine, true},
		{"by the whole path", argv("/sbin/lvchange", "x"), mine, argv("/usr/sbin/lvchange"), sameVG, true},
		{"vgchange after lvchange", argv("lvchange", "x"), mine, argv("vgchange", "x"), sameVG, true},
		{"vgs after lvs", argv("lvs"), mine, argv("vgs"), sameVG, true},
		{"vgchange after lvs", argv("lvs"), mine, argv("vgchange", "x"), sameVG, true},
		{"lvchange after dmsetup", argv("dmsetup", "remove", "x"), mine, argv("lvchange"), sameVG, true},
		{"lvs of another object while the lock manager hangs", argv("lvchange", "x"), mine, argv("lvs"), sameVG, false},
		{"lvs of the same object while the lock manager hangs", argv("lvchange", "x"), mine, argv("lvs"), mine, true},
		{"mount of the same group", argv("lvchange", "x"), mine, argv("mount", "x"), sameVG, false},
		{"lvs after a hanging mount", argv("mount", "x"), mine, argv("lvs"), sameVG, false},
		{"lvs after a hanging hook", hook, mine, argv("lvs"), sameVG, false},
		{"the same path", argv("mount", "x"), mine, argv("mount", "y"), samePath, true},
		{"another object", argv("lvchange", "x"), mine, argv("lvchange", "y"), other, false},
		{"no group", argv("lvs"), lustre, argv("lvchange"), otherLustre, false},
		{"nvme of the same device", argv("nvme", "ns-rescan", "/dev/nvme0"), mine, argv("nvme", "ns-rescan", "/dev/nvme0"), other, true},
		{"nvme of another device", argv("nvme", "ns-rescan", "/dev/nvme0"), mine, argv("nvme", "ns-rescan", "/dev/nvme1"), other, false},
		{"diagnosis while lvchange hangs", argv("lvchange", "x"), mine, argv("dlm_tool", "ls", "-n"), independent, false},
		{"a second diagnosis", argv("dlm_tool", "ls", "-n"), independent, argv("dlm_tool", "ls", "-n"), other, true},
		{"lvchange while the diagnosis hangs", argv("dlm_tool", "ls", "-n"), independent, argv("lvchange", "x"), mine, false},
		{"a rescan at the deletion while lvchange hangs", argv("lvchange", "x"), mine, argv("nvme", "ns-rescan", "/dev/nvme0"), independent, false},
		{"a rescan at the deletion while another rescan hangs", argv("nvme", "ns-rescan", "/dev/nvme7"), other, argv("nvme", "ns-rescan", "/dev/nvme0"), independent, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, ran := newStuckTable(), 0
			run := func(p purpose, c node.Command, err error) error {
				next := runs(func(context.Context, node.Command) (node.Result, error) { ran++; return node.Result{}, err })
				_, err = (&guard{next: next, table: table, log: slog.New(slog.DiscardHandler), purpose: p}).Run(t.Context(), c)
				return err
			}
			if err := run(tt.of, tt.hangs, hung(tt.hangs.String())); errors.Is(err, node.ErrHangs) || !hangs(err) {
				t.Fatal(err)
			}
			err := run(tt.by, tt.then, nil)
			if errors.Is(err, node.ErrHangs) != tt.refused || err != nil && !tt.refused {
				t.Errorf("got %v", err)
			}
			want := 2
			if tt.refused {
				want = 1
			}
			if ran != want {
				t.Errorf("%d commands ran, want %d", ran, want)
			}
		})
	}
}

// runs is a Runner that calls a function.
type runs func(ctx context.Context, c node.Command) (node.Result, error)

func (f runs) Run(ctx context.Context, c node.Command) (node.Result, error) { return f(ctx, c) }

// With a hanging lock manager only one command is started, however often the mount is
// retried. The status names it, and is written and logged once.
func TestHangingCommandIsStartedOnce(t *testing.T) {
	for _, tt := range []struct {
		typ, command string
		want         string // the step in the first status
	}{
		{dws.TypeXFS, "lvchange", "unable to activate block device"},
		{dws.TypeXFS, "lvs", "unable to activate block device"},
		{dws.TypeGFS2, "vgchange", "unable to activate block device"},
		{dws.TypeGFS2, "vgs", "unable to activate block device"},
		{dws.TypeXFS, "hook pre-activate", "unable to run block device PreActivate commands"},
		{dws.TypeXFS, "mount", "unable to mount file system"},
		{dws.TypeRaw, "chown", "unable to set owner and group for file system"},
	} {
		t.Run(tt.typ+" "+tt.command, func(t *testing.T) {
			f := newFixture(t, tt.typ)
			var log bytes.Buffer
			f.rec.log = slog.New(slog.NewTextHandler(&log, nil))
			f.machine.fail[tt.command] = hung(tt.command)
			f.reconcile()
			ran := slices.DeleteFunc(f.machine.done(), func(l string) bool { return !strings.HasPrefix(l, tt.command) })
			if len(ran) != 1 {
				t.Fatalf("at first %q", ran)
			}
			if st := f.server.object().Status; st.Error == nil || !strings.Contains(st.Error.DebugMessage, tt.want+": ") {
				t.Errorf("at first status %s", describe(&st))
			}
			f.reconcile() // from now on the text is that of the refused start
			st := f.server.object().Status
			writes := len(f.server.writes)
			log.Reset()
			for range 4 {
				if res := f.reconcile(); !res.retry || res.permanent {
					t.Errorf("%+v", res)
				}
			}
			for _, line := range f.machine.done() {
				if !strings.HasPrefix(line, "mkdir ") && !strings.HasPrefix(line, "touch ") && !strings.HasPrefix(line, "rescan ") {
					t.Errorf("started %q", line)
				}
			}
			if st.Error == nil || st.Error.Severity != dws.Major || !strings.Contains(st.Error.DebugMessage, "an earlier command still hangs: pid ") {
				t.Fatalf("status %s", describe(&st))
			}
			if n := len(f.server.writes); n != writes {
				t.Errorf("%d more writes of the status", n-writes)
			}
			if log.Len() > 0 {
				t.Errorf("logged again: %s", &log)
			}
			// The command has exited: the next attempt succeeds.
			f.rec.stuck.by = map[string][]stuckCommand{"object aaaa-1": {{pid: os.Getpid(), start: "1"}}}
			delete(f.machine.fail, tt.command)
			if f.reconcile(); !f.server.object().Status.AllReady {
				st := f.server.object().Status
				t.Errorf("after the command has exited: %s", describe(&st))
			}
		})
	}
}

// The state of the lock manager is logged when a deactivation starts to hang, not at each
// retry.
func TestDiagnosisOfAHangingDeactivation(t *testing.T) {
	f := newMounted(t, dws.TypeGFS2)
	f.machine.done()
	f.machine.fail["lvchange"] = hung("lvchange")
	f.want(dws.Unmounted)
	for range 4 {
		f.reconcile()
	}
	count := map[string]int{}
	for _, line := range f.machine.done() {
		word, _, _ := strings.Cut(line, " ")
		count[word]++
	}
	if count["dlm_tool"] != 1 || count["lvchange"] != 1 {
		t.Errorf("%v", count)
	}
}

// Every command for an object has the mark by which the next daemon finds it.
func TestEveryCommandIsMarked(t *testing.T) {
	for _, typ := range []string{dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		f := newFixture(t, typ)
		commands := 0
		count := func() {
			commands += len(slices.DeleteFunc(f.machine.done(), func(l string) bool {
				word, _, _ := strings.Cut(l, " ")
				return slices.Contains([]string{"mkdir", "touch", "remove", "rescan"}, word) // not by the fake's Run
			}))
		}
		f.reconcile()
		f.want(dws.Unmounted)
		f.machine.fail["lvchange"] = errors.New("in use")
		f.reconcile() // with a diagnosis
		delete(f.machine.fail, "lvchange")
		f.reconcile()
		f.delete()
		f.reconcile()
		count()
		if marked := f.machine.marked[markOf("aaaa-1")]; commands < 4 || marked != commands {
			t.Errorf("%s: %d of %d commands are marked", typ, marked, commands)
		}
	}
}

// A leftover command blocks the same commands as one of ours.
func TestLeftoverKeys(t *testing.T) {
	for _, tt := range []struct {
		left     node.Leftover
		vg       bool
		ofObject bool
	}{
		{node.Leftover{PID: os.Getpid(), Program: "lvs", Line: "lvs --nolock"}, true, true},
		{node.Leftover{PID: os.Getpid(), Program: "bash", Line: "bash -c x"}, false, true},
		{node.Leftover{PID: os.Getpid(), Program: "clientmountd-child", Line: "clientmountd-child chown /x"}, false, true},
	} {
		f := newMounted(t, dws.TypeXFS)
		f.machine.leftovers = map[string][]node.Leftover{markOf("aaaa-1"): {tt.left}}
		f.restart(f.rec.records)
		if err := f.task("aaaa-1").waitLeftovers(mustLoad(t, f)); err != nil {
			t.Fatal(err)
		}
		plans := []*plan.Plan{{Path: "/mnt/nnf/other", VG: testVG}}
		_, err := f.rec.machineFor(t.Context(), f.rec.log, purpose{uid: "other", plans: plans}).LVs(t.Context(), testVG, 0)
		if errors.Is(err, node.ErrHangs) != tt.vg {
			t.Errorf("%s, another object of the group: %v", tt.left.Line, err)
		}
		_, err = f.rec.machineFor(t.Context(), f.rec.log, purpose{uid: "aaaa-1"}).Run(t.Context(), node.Command{Argv: []string{"true"}})
		if errors.Is(err, node.ErrHangs) != tt.ofObject {
			t.Errorf("%s, the object: %v", tt.left.Line, err)
		}
	}
}

func mustLoad(t *testing.T, f *fixture) *Record {
	t.Helper()
	rec, err := f.rec.records.Load("aaaa-1")
	if err != nil || rec == nil {
		t.Fatal(rec, err)
	}
	return rec
}

// realNode returns a reconciler with package node on a separate tree; run runs its
// programs.
func realNode(t *testing.T, mountinfo string, run runs) *reconciler {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"/proc/self", "/dev"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"/proc/self/mountinfo": mountinfo, "/dev/nvme0": "", "/dev/nvme1": ""} {
		if err := os.WriteFile(root+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &reconciler{
		host: realHost{&node.Node{Root: root, Exec: run}}, stuck: newStuckTable(), log: slog.New(slog.DiscardHandler),
		limits: func() Limits { return Limits{Command: time.Minute} },
	}
}

// The guard also applies to programs that package node starts.
func TestGuardInPackageNode(t *testing.T) {
	plans := []*plan.Plan{{Path: "/mnt/a", VG: "v"}}
	for name, start := range map[string]func(m Machine) error{
		"lvs":            func(m Machine) error { _, err := m.LVs(t.Context(), "v", 0); return err },
		"vgs":            func(m Machine) error { _, err := m.HasVG(t.Context(), "v", 0); return err },
		"wait for a VG":  func(m Machine) error { return m.WaitVG(t.Context(), "v", time.Hour, 0) },
		"nvme list":      func(m Machine) error { _, err := m.Namespaces(t.Context(), 0); return err },
		"nvme ns-rescan": func(m Machine) error { return m.RescanNVMe(t.Context(), nil, 0) },
		"wait for nvme": func(m Machine) error {
			_, err := m.WaitNamespaces(t.Context(), []node.Namespace{{NQN: "n", NSID: 1}}, time.Hour, 0)
			return err
		},
		"owner of a mount": func(m Machine) error {
			return m.ChownMount(node.Mount{ID: 9, Mountpoint: "/mnt/a", FSType: "lustre"}, 1, 1)
		},
		"file in a mount": func(m Machine) error { return m.WriteFileIn("/mnt/a", "x", []byte("y"), 0, 0) },
		"nested target":   func(m Machine) error { _, err := m.MakeDirectory("/mnt/a/x"); return err },
		"nested file":     func(m Machine) error { _, err := m.MakeFile("/mnt/a/x"); return err },
		"nested removal":  func(m Machine) error { _, err := m.RemoveTarget("/mnt/a/x", nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			var env []string
			ran := 0
			r := realNode(t, "1 0 0:1 / / rw - ext4 /dev/sda rw\n9 1 0:2 / /mnt/a rw - lustre x rw\n", func(_ context.Context, c node.Command) (node.Result, error) {
				ran++
				env = c.Env
				return node.Result{}, hung(c.String())
			})
			m := r.machineFor(t.Context(), r.log, purpose{uid: "a", plans: plans})
			if err := start(m); !hangs(err) || ran != 1 || !slices.Contains(env, markOf("a")) {
				t.Errorf("first: %v, %d commands, environment %q", err, ran, env)
			}
			if err := start(m); !errors.Is(err, node.ErrHangs) || ran != 1 {
				t.Errorf("second: %v, %d commands", err, ran)
			}
		})
	}
}

// The rescan of a deletion does not wait for other hanging commands, and is skipped if a
// rescan hangs.
func TestRescanOfADeletionWhileCommandsHang(t *testing.T) {
	var lines []string
	var fail error
	r := realNode(t, "1 0 0:1 / / rw - ext4 /dev/sda rw\n", func(_ context.Context, c node.Command) (node.Result, error) {
		lines = append(lines, c.String())
		return node.Result{Stdout: `{"Devices":[]}`}, fail
	})
	p := &plan.Plan{Type: dws.TypeXFS, Path: "/mnt/a", VG: "v"}
	r.stuck.add(os.Getpid(), "lvchange", purpose{uid: "a", plans: []*plan.Plan{p}}.keys("lvchange", "lvchange")...)
	var out bytes.Buffer
	rescan := func(uid string) []string {
		lines = nil
		(&task{reconciler: r, uid: uid, ctx: t.Context(), log: slog.New(slog.NewTextHandler(&out, nil))}).rescan([]*plan.Plan{p})
		return lines
	}
	warnings := func() int { return strings.Count(out.String(), "level=WARN") }
	both := []string{"nvme ns-rescan /dev/nvme0", "nvme ns-rescan /dev/nvme1"}
	if got := rescan("a"); !slices.Equal(got, both) || warnings() != 0 {
		t.Errorf("while lvchange hangs: %q, %d warnings", got, warnings())
	}
	fail = hung("nvme")
	if got := rescan("a"); len(got) != 1 || warnings() != 1 {
		t.Errorf("the first hangs: %q, %d warnings", got, warnings())
	}
	fail = nil
	if got := rescan("b"); len(got) != 0 || warnings() != 2 {
		t.Errorf("another deletion: %q, %d warnings", got, warnings())
	}
	lines = nil
	if err := r.machineFor(t.Context(), r.log, purpose{uid: "c"}).RescanNVMe(t.Context(), nil, 0); err != nil || !slices.Equal(lines, both[1:]) {
		t.Errorf("a mount that needs the other device: %q, %v", lines, err)
	}
}

// A child of this program creates a nested target.
func TestNestedTargetIsCreatedByAChild(t *testing.T) {
	var ran []node.Command
	top := t.TempDir()
	r := realNode(t, "1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / "+top+" rw - lustre x rw\n", func(ctx context.Context, c node.Command) (node.Result, error) {
		ran = append(ran, c)
		return new(node.Exec).Run(ctx, c)
	})
	m := r.machineFor(t.Context(), r.log, purpose{uid: "a"})
	created, err := m.MakeDirectory(top + "/x/y")
	if err != nil || !slices.Equal(created, []string{top + "/x", top + "/x/y"}) || len(ran) != 1 || ran[0].Timeout != time.Minute {
		t.Fatalf("%q, %v, by %v", created, err, ran)
	}
	if list, _ := filepath.Glob(top + "/x/*"); len(list) != 1 {
		t.Errorf("made %q", list)
	}
}

// A hanging command of an earlier daemon blocks the path, and the status names it.
func TestCommandOfEarlierDaemonHangs(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.effect([]string{"umount", testPath})
	f.machine.done()
	// This process replaces the command, because it keeps running.
	f.machine.leftovers = map[string][]node.Leftover{markOf("aaaa-1"): {{PID: os.Getpid(), Line: "umount " + testPath}}}
	f.restart(f.rec.records)
	f.reconcile()
	if st := f.server.object().Status; st.Error == nil || !strings.Contains(st.Error.DebugMessage, "an earlier command still hangs") {
		t.Fatalf("status %s", describe(&st))
	}
	if f.machine.mounted(testPath) {
		t.Error("mounted while a command hangs")
	}
}

// A daemon waits once for leftovers, and again if the wait was interrupted; without a
// record it does not wait.
func TestLeftoversAreWaitedForOnce(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	if !f.work.waited {
		t.Error("a new object waits")
	}
	f.machine.done()
	f.restart(f.rec.records)
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	if res := f.rec.reconcile(t.Context(), waits, f.work, f.server.object()); res.failed || f.work.waited {
		t.Errorf("%+v, waited %t", res, f.work.waited)
	}
	f.expect("steps after an interrupted wait", f.machine.done(), nil)
	if f.reconcile(); !f.work.waited || !f.machine.mounted(testPath) {
		t.Error("the next attempt does not continue")
	}
}
