package main

import (
	"bytes"
	"flag"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/systemd/fakesystemd"
)

var update = flag.Bool("update", false, "write golden texts into the scripts instead of comparing")

func TestMain(m *testing.M) {
	node.RunChild()
	script.Main(m, program)
}

func TestScripts(t *testing.T) { script.Run(t, program.Name, *update) }

// status counts the mounts of a stopped daemon from its records, in the directory that the
// unit sets.
func TestStatusCountsRecords(t *testing.T) {
	root := t.TempDir()
	runtime := filepath.Join(root, "runtime")
	manager := fakesystemd.Manager{Root: root}
	if err := manager.Boot(); err != nil {
		t.Fatal(err)
	}
	was := program.Service.Machine
	defer func() { program.Service.Machine = was }()
	program.Service.Machine = systemd.Machine{
		Root: root, Run: manager.Run, UID: func() int { return 0 },
		Program: func(string) (string, error) { return "/usr/bin/clientmountd", nil },
	}
	if code := program.Run(t.Context(), []string{"install", "--config=/dev/null", "--runtime-directory=" + runtime, "--state-directory=/persistent"}, nil, new(bytes.Buffer), t.Output()); code != 0 {
		t.Fatalf("install: %d", code)
	}
	look := func(count, unreadable int) {
		t.Helper()
		var out bytes.Buffer
		if code := program.Run(t.Context(), []string{"status", "-o", "json"}, nil, &out, t.Output()); code != 0 {
			t.Errorf("exit code %d", code)
		}
		s, err := systemd.ParseStatus(out.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		if s.Renewal == nil || *s.Renewal != (systemd.RenewalStatus{Enabled: true, Directory: "/persistent"}) {
			t.Errorf("%+v", s.Renewal)
		}
		if *s.Mounts != (systemd.MountStatus{Count: count, Unreadable: unreadable}) || s.Paths["records"] != clientmount.RecordsDirectory(runtime) {
			t.Errorf("%+v %+v, want %d and %d", s.Mounts, s.Paths, count, unreadable)
		}
	}
	look(0, 0)
	if err := syscall.Access(runtime, 0); err == nil {
		t.Error("status has created the runtime directory")
	}
	records, err := clientmount.OpenRecords(runtime)
	if err != nil {
		t.Fatal(err)
	}
	// A mount that exists on every machine replaces a mount of the daemon.
	on, err := new(node.Node).MountsOn("/proc")
	if err != nil || len(on) == 0 {
		require.Missing(t, "nothing is mounted at /proc")
	}
	place := clientmount.Identity{ID: on[0].ID, Device: on[0].Device().String(), Root: on[0].Root, FSType: on[0].FSType, Source: on[0].Source}
	gone := place
	gone.ID, gone.Device = 1<<30, "9:999"
	for uid, m := range map[string]clientmount.MountRecord{
		"in-place":  {Plan: plan.Plan{Path: "/proc"}, Mounted: &place, Ready: true},
		"unmounted": {Plan: plan.Plan{Path: "/proc"}, Unmounted: true},
		"by-hand":   {Plan: plan.Plan{Path: "/proc"}, Mounted: &gone, Ready: true},
		"planned":   {Plan: plan.Plan{Path: "/proc"}},
	} {
		if err := records.Save(&clientmount.Record{Version: 1, UID: uid, Name: uid, Mounts: []clientmount.MountRecord{m}}); err != nil {
			t.Fatal(err)
		}
	}
	look(1, 0)
	if err := records.Save(&clientmount.Record{Version: 99, UID: "newer"}); err != nil {
		t.Fatal(err)
	}
	look(1, 1)

	for args, want := range map[string]string{
		"status -o":           "flag -o needs a value",
		"status -o yaml":      `-o is json or text, not "yaml"`,
		"status --level=x":    "unknown flag",
		"status -o json more": "",
		"start -o json":       "",
	} {
		var errs bytes.Buffer
		if code := program.Run(t.Context(), strings.Fields(args), nil, new(bytes.Buffer), &errs); code != 2 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: %d %s", args, code, &errs)
		}
	}
	var out bytes.Buffer
	if code := program.Run(t.Context(), []string{"status", "--output=text"}, nil, &out, t.Output()); code != 0 || !strings.HasPrefix(out.String(), "Service is stopped\n") {
		t.Errorf("%d %s", code, &out)
	}
}
