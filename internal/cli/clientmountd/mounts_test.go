package clientmountd

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

func nodeOfMounts() *mountstate.Mounts {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	return &mountstate.Mounts{
		Version: mountstate.MountsVersion, Node: "compute-07", Time: now, Daemon: mountstate.Daemon{Running: true, API: mountstate.APIConnected},
		Mounts: []mountstate.Mount{
			{ClientMount: "a", Workflow: "job1", Path: "/mnt/nnf/a", Type: "xfs", State: mountstate.Mounted, Since: ago(3 * time.Hour)},
			{
				ClientMount: "b", Workflow: "job2", Path: "/mnt/nnf/b", Type: "lustre", State: mountstate.Stuck, Phase: mountstate.PhaseUnmount, Since: ago(16 * time.Minute),
				Commands: []mountstate.Command{{PID: 3211, Program: "umount", Started: ago(16 * time.Minute), Kernel: true}},
			},
			{
				ClientMount: "c", Workflow: "job2", Path: "/mnt/nnf/c", Type: "gfs2", State: mountstate.Busy, Phase: mountstate.PhaseUnmount, Since: ago(2 * time.Minute),
				Failure: &mountstate.Failure{Kind: mountstate.FailureBusy, Text: "target is busy"},
				Holders: []mountstate.Holder{{PID: 4242, UID: 1001, Command: "vim", Text: "pid 4242 (vim, uid 1001): cwd /mnt/nnf/c"}, {PID: 1}},
			},
			{ClientMount: "d", Path: "/mnt/nnf/d", Type: "raw", State: mountstate.Failed, Phase: mountstate.PhaseMount, Since: ago(5 * time.Second), Failure: &mountstate.Failure{Text: "no\nvolume \x1b[1m" + strings.Repeat("x", 500)}},
			{ClientMount: "e", Workflow: "job1", Path: "/mnt/nnf/e", Type: "none", State: mountstate.Mounting},
		},
	}
}

func TestMounts(t *testing.T) {
	doc := nodeOfMounts()
	replaced(t, func(string) (*mountstate.Mounts, error) {
		copied := *doc
		copied.Mounts = slices.Clone(doc.Mounts)
		return &copied, nil
	})
	want := strings.ReplaceAll(`CLIENTMOUNT  WORKFLOW  PATH        TYPE    STATE     SINCE  DETAIL
a            job1      /mnt/nnf/a  xfs     mounted   3h     -
b            job2      /mnt/nnf/b  lustre  stuck     16m    umount (pid 3211) waits in the kernel
c            job2      /mnt/nnf/c  gfs2    busy      2m     in use by pid 4242 (vim, uid 1001): cwd /mnt/nnf/c and 1 more
d            -         /mnt/nnf/d  raw     failed    5s     no\nvolume \x1b[1mLONG…
e            job1      /mnt/nnf/e  none    mounting  -      -
`, "LONG", strings.Repeat("x", detailLimit-len("no\nvolume \x1b[1m")))
	if code, out, errs := run("mounts", "--config=/dev/null"); code != 0 || out != want || errs != "" {
		t.Errorf("exit code %d, standard error %q\n%s\nwant:\n%s", code, errs, out, want)
	}
	column := func(args ...string) string {
		t.Helper()
		code, out, errs := run(append([]string{"mounts", "--config=/dev/null"}, args...)...)
		if errs == "clientmountd: no ClientMount of workflow none is recorded in /run/clientmountd\n" {
			return "none"
		}
		if code != 0 || errs != "" {
			t.Errorf("%q: exit code %d, %s", args, code, errs)
		}
		names := ""
		for line := range strings.Lines(out) {
			names += line[:1]
		}
		return names
	}
	for args, want := range map[string]string{
		"--sort=state": "Cbdcea", "--sort=since": "Ceabcd", "--sort=path": "Cabcde", "--sort=workflow": "Cdaebc",
		"--workflow=job1": "Cae", "--workflow=none": "none",
	} {
		if got := column(args); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	code, out, _ := run("mounts", "--config=/dev/null", "-o", "json", "--workflow=job2")
	if parsed, err := mountstate.ParseMounts([]byte(out)); err != nil || code != 0 || len(parsed.Mounts) != 2 {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
	stopped := doc.Time.Add(-3 * time.Hour)
	doc.Daemon = mountstate.Daemon{API: mountstate.APIUnknown, Since: &stopped}
	if code, out, errs := run("mounts", "--config=/dev/null"); code != 0 || out != want || errs != "clientmountd: clientmountd not running for 3h, so states may not change\n" {
		t.Errorf("exit code %d, standard error %q", code, errs)
	}
	doc.Daemon = mountstate.Daemon{Running: true, API: mountstate.APIConnected}
	doc.Unreadable = []string{"record x is damaged", "record y is damaged"}
	code, out, errs := run("mounts", "--config=/dev/null")
	if code != 1 || out != want || errs != "clientmountd: error: record x is damaged\nclientmountd: error: record y is damaged\n" {
		t.Errorf("exit code %d, standard error %q", code, errs)
	}
	if code, _, errs := run("mounts", "--sort=age"); code != 2 || !strings.Contains(errs, "--sort must be one of clientmount") {
		t.Errorf("exit code %d, standard error %q", code, errs)
	}
}
