package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	disk0 = "nqn.2014-08.org.example:disk0"
	disk1 = "nqn.2014-08.org.example:disk1"
)

func TestNamespacesFromSysfs(t *testing.T) {
	for tree, want := range map[string][]Namespace{
		"nvme-single": {
			{"/dev/nvme0n1", "nvme0", "nqn.2014.08.org.nvmexpress:boot", 1},
			{"/dev/nvme1n2", "nvme1", disk0, 12},
			{"/dev/nvme10n1", "nvme10", disk1, 12},
			{"/dev/nvme1n10", "nvme1", disk0, 7},
		},
		"nvme-multipath": {
			{"/dev/nvme0n1", "nvme0", disk0, 12},
			{"/dev/nvme0n2", "nvme0", disk0, 13},
		},
	} {
		got, err := plant(t, tree).Namespaces(t.Context(), time.Second) // its runner refuses all commands
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", tree, got, err)
		}
	}
}

func TestNamespacesFromNVMeCLI(t *testing.T) {
	for file, want := range map[string][]Namespace{
		"nvme-list-1.json": {{"/dev/nvme0n1", "nvme0", disk0, 12}, {"/dev/nvme0n2", "nvme0", disk0, 13}},
		"nvme-list-2.json": {{"/dev/nvme0n1", "nvme0", disk0, 12}, {"/dev/nvme1n1", "nvme1", disk1, 13}},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		must(t, err)
		f := &fake{answers: map[string]string{"nvme list -v --output-format=json": string(b)}}
		n := &Node{Root: t.TempDir(), Exec: f}
		got, err := n.Namespaces(t.Context(), time.Second)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", file, got, err)
		}
		if f.last.Timeout != time.Second {
			t.Error("the time limit was lost")
		}
	}
	f := &fake{answers: map[string]string{"nvme list -v --output-format=json": "Failed to scan topology"}}
	if _, err := (&Node{Root: t.TempDir(), Exec: f}).Namespaces(t.Context(), 0); err == nil || !strings.HasPrefix(err.Error(), "nvme list did not print") {
		t.Error(err)
	}
	if _, err := (&Node{Root: t.TempDir(), Exec: &fake{}}).Namespaces(t.Context(), 0); err == nil {
		t.Error("no error although nvme fails")
	}
}

func TestRescanNVMe(t *testing.T) {
	for _, tt := range []struct {
		name, tree string
		nqns       []string
		sysfs      []string // controllers rescanned through sysfs
		lines      []string // commands of nvme-cli
	}{
		{name: "one of several", tree: "nvme-single", nqns: []string{disk1}, sysfs: []string{"nvme10"}},
		{name: "two", tree: "nvme-single", nqns: []string{disk0, disk1, "nqn.x"}, sysfs: []string{"nvme1", "nvme10"}},
		{name: "unknown: all", tree: "nvme-single", nqns: []string{"nqn.x"}, sysfs: []string{"nvme1", "nvme10", "nvme3"}, lines: []string{"nvme ns-rescan /dev/nvme0"}},
		{name: "no names: all", tree: "nvme-single", sysfs: []string{"nvme1", "nvme10", "nvme3"}, lines: []string{"nvme ns-rescan /dev/nvme0"}},
		{name: "no rescan in sysfs", tree: "nvme-multipath", nqns: []string{disk0}, lines: []string{"nvme ns-rescan /dev/nvme0", "nvme ns-rescan /dev/nvme1"}},
		{name: "no sysfs", tree: "machine"},
	} {
		n := plant(t, tt.tree)
		f := n.Exec.(*fake)
		f.answers = map[string]string{"nvme ns-rescan /dev/nvme0": "", "nvme ns-rescan /dev/nvme1": ""}
		if err := n.RescanNVMe(t.Context(), tt.nqns, time.Second); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !slices.Equal(f.lines, tt.lines) {
			t.Errorf("%s: ran %q", tt.name, f.lines)
		}
		var asked []string
		files, _ := filepath.Glob(n.Root + "/sys/class/nvme/*/rescan_controller")
		for _, file := range files {
			if b, _ := os.ReadFile(file); string(b) == "1" {
				asked = append(asked, filepath.Base(filepath.Dir(file)))
			}
		}
		if !slices.Equal(asked, tt.sysfs) {
			t.Errorf("%s: rescanned %q through sysfs", tt.name, asked)
		}
	}
}

func TestRescanFailures(t *testing.T) {
	n := plant(t, "nvme-multipath")
	f := n.Exec.(*fake)
	f.answers = map[string]string{"nvme ns-rescan /dev/nvme1": ""}
	if err := n.RescanNVMe(t.Context(), []string{disk0}, 0); err != nil {
		t.Errorf("one of two works: %v", err)
	}
	f.answers = nil
	f.errors = map[string]error{"nvme ns-rescan /dev/nvme1": ExitStatus(16)}
	err := n.RescanNVMe(t.Context(), []string{disk0}, 0)
	if err == nil || !strings.Contains(err.Error(), "could not rescan NVMe devices: nvme0: ") || exitStatus(err) != 16 {
		t.Errorf("none works: %v", err)
	}
}

// Without a class in sysfs, the controllers in /dev are used.
func TestRescanWithoutSysfs(t *testing.T) {
	n := plant(t, "nvme-single")
	must(t, os.RemoveAll(n.Root+"/sys"))
	f := n.Exec.(*fake)
	n.RescanNVMe(t.Context(), []string{disk0}, 0)
	want := []string{"nvme ns-rescan /dev/nvme0", "nvme ns-rescan /dev/nvme1", "nvme ns-rescan /dev/nvme3", "nvme ns-rescan /dev/nvme10"}
	if !slices.Equal(f.lines, want) {
		t.Errorf("ran %q", f.lines)
	}
}

func TestWaitNamespaces(t *testing.T) {
	n := plant(t, "nvme-single")
	there := Namespace{NQN: disk0, NSID: 12}
	late := Namespace{NQN: disk1, NSID: 99}
	if m, err := n.WaitNamespaces(t.Context(), []Namespace{there}, 0, 0); err != nil || m != nil {
		t.Errorf("there: %v, %v", m, err)
	}
	bounded(t, time.Second, func() {
		m, err := n.WaitNamespaces(t.Context(), []Namespace{there, late}, 30*time.Millisecond, 0)
		if err != nil || !slices.Equal(m, []Namespace{late}) {
			t.Errorf("missing: %v, %v", m, err)
		}
	})

	var m []Namespace
	var err error
	var ended time.Time
	var wg sync.WaitGroup
	wg.Go(func() {
		m, err = n.WaitNamespaces(t.Context(), []Namespace{there, late}, 10*time.Second, 0)
		ended = time.Now()
	})
	untilWatches(t, 1)
	must(t, os.WriteFile(n.Root+"/dev/sda9", nil, 0o644)) // not an NVMe device
	must(t, os.MkdirAll(n.Root+"/sys/class/nvme/nvme10/nvme10n5", 0o755))
	must(t, os.WriteFile(n.Root+"/sys/class/nvme/nvme10/nvme10n5/nsid", []byte("99\n"), 0o644))
	must(t, os.WriteFile(n.Root+"/dev/nvme10n5", nil, 0o644))
	made := time.Now()
	wg.Wait()
	if err != nil || m != nil || ended.Sub(made) > busy { // it did not wait for the time limit
		t.Errorf("late: %v, %v, after %v", m, err, ended.Sub(made))
	}

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if m, err := n.WaitNamespaces(ctx, []Namespace{{NQN: "nqn.x", NSID: 1}}, time.Hour, 0); !errors.Is(err, context.Canceled) || len(m) != 1 {
		t.Errorf("cancelled: %v, %v", m, err)
	}
}

// A namespace that is in sysfs but has no device node yet is missing.
func TestWaitNamespacesNeedsTheNode(t *testing.T) {
	n := plant(t, "nvme-single")
	must(t, os.Remove(n.Root+"/dev/nvme1n2"))
	want := []Namespace{{NQN: disk0, NSID: 12}}
	if m, err := n.WaitNamespaces(t.Context(), want, time.Millisecond, 0); err != nil || !slices.Equal(m, want) {
		t.Errorf("%v, %v", m, err)
	}
}

// nvme-cli is not run again after changes in /dev that do not concern NVMe.
func TestWaitNamespacesRunsNVMeRarely(t *testing.T) {
	const line = "nvme list -v --output-format=json"
	f := &fake{answers: map[string]string{line: `{"Devices":[]}`}}
	n := &Node{Root: t.TempDir(), Exec: f}
	must(t, os.Mkdir(n.Root+"/dev", 0o755))
	var wg sync.WaitGroup
	wg.Go(func() {
		n.WaitNamespaces(t.Context(), []Namespace{{NQN: disk0, NSID: 1}}, 200*time.Millisecond, 0)
	})
	untilWatches(t, 1)
	for _, name := range []string{"sda", "sdb", "dm-0", "nvme0"} {
		must(t, os.WriteFile(filepath.Join(n.Root, "dev", name), nil, 0o644))
	}
	wg.Wait()
	if len(f.lines) > 2 { // at the start and at the time limit
		t.Errorf("ran %d times", len(f.lines))
	}
}

func FuzzNVMeList(f *testing.F) {
	for _, file := range []string{"nvme-list-1.json", "nvme-list-2.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	for _, s := range []string{
		``, `null`, `{}`, `[]`, `{"Devices":null}`, `{"Devices":[null]}`, `{"Devices":[{"SubsystemNQN":"q","Namespaces":[{"NameSpace":"../../etc","NSID":1}]}]}`,
		`{"Devices":[{"SubsystemNQN":"q","Controllers":[{"Namespaces":[{"NameSpace":"nvme0n1","NSID":-1}]}]}]}`,
		`{"Devices":[{"SubsystemNQN":"q","Controllers":[{"Controller":"x y","Namespaces":[{"NameSpace":"nvme0n1","NSID":"1"}]}]}]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseNVMeList(s)
		if err != nil && (list != nil || !strings.HasPrefix(err.Error(), "nvme list did not print")) {
			t.Errorf("%v, %v", list, err)
		}
		for _, ns := range list {
			if ns.NQN == "" || ns.NSID == 0 || !namespaceName.MatchString(strings.TrimPrefix(ns.Device, "/dev/")) ||
				ns.Controller != "" && !controllerName.MatchString(ns.Controller) {
				t.Errorf("%+v", ns)
			}
		}
	})
}
