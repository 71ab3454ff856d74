package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

// machine creates a state directory with two groups: a local one with one volume and a
// shared one with two. Nodes are regular files, so that no privileges are required.
func machine(t *testing.T) record.Dir {
	t.Helper()
	dir := record.Dir(t.TempDir())
	nodes := t.TempDir()
	err := dir.Update(func(s *record.State) error {
		for _, v := range []record.Volume{{VG: "local", LV: "lv"}, {VG: "shared", LV: "lv-0", Shared: true}, {VG: "shared", LV: "lv-1", Shared: true}} {
			v.Node, v.Plain = filepath.Join(nodes, v.VG+"-"+v.LV), true
			s.Volumes = append(s.Volumes, &v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

type result struct {
	code   int
	stdout string
	stderr string
}

func call(dir record.Dir, line string) result {
	var out, errs bytes.Buffer
	words := strings.Fields(line)
	code := run(dir, words[0], words[1:], &out, &errs)
	return result{code, out.String(), errs.String()}
}

// A sequence of commands; each depends on the ones before it.
func TestVolumeGroups(t *testing.T) {
	dir := machine(t)
	for _, tt := range []struct {
		line   string
		code   int
		stderr string
	}{
		{"lvchange --activate ys shared/lv-0", 5, "lockspace is inactive"},
		{"vgchange --lock-stop shared", 0, ""},
		{"vgchange --lock-start shared", 0, ""},
		{"vgchange --lock-start shared", 0, ""},
		{"lvchange --activate ys shared/lv-0", 0, ""},
		{"lvchange --activate ys shared/lv-0", 0, ""},
		{"vgchange --lock-stop shared", 5, "LVs must first be deactivated"},
		{"lvchange --activate n shared/lv-0", 0, ""},
		{"lvchange --activate n shared/lv-0", 0, ""},
		{"vgchange --lock-stop shared", 0, ""},
		{"lvchange --activate n shared/lv-0", 5, "lockspace is inactive"},
		{"lvchange -ay /dev/local/lv", 0, ""},
		{"vgchange --activate n local", 0, ""},
		{"vgchange --lock-start local", 0, ""},
		{"lvchange --activate y nowhere/lv", 5, `Volume group "nowhere" not found`},
		{"lvchange --activate y local/none", 5, `Failed to find logical volume "local/none"`},
		{"lvchange --activate maybe local/lv", 5, "Invalid argument"},
		{"lvchange local/lv", 3, "No command with matching syntax"},
		{"vgchange local", 3, "No command with matching syntax"},
		{"lvs --select lv_nonsense=x", 3, "Selection syntax error"},
		{"lvs -o lv_nonsense", 3, "Unrecognised field: lv_nonsense"},
		{"lvs nowhere", 5, `Volume group "nowhere" not found`},
		{"nvme list", 1, "without JSON"},
		{"nvme format /dev/nvme0", 1, "Invalid sub-command"},
	} {
		got := call(dir, tt.line)
		if got.code != tt.code || !strings.Contains(got.stderr, tt.stderr) || (tt.stderr == "" && got.stderr != "") {
			t.Errorf("%s: code %d, %q; want %d, %q", tt.line, got.code, got.stderr, tt.code, tt.stderr)
		}
	}
	s, err := dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range s.Volumes {
		if _, err := os.Stat(v.Node); v.Active || err == nil {
			t.Errorf("%s/%s is active or has a node", v.VG, v.LV)
		}
	}
	calls, err := dir.Calls()
	if err != nil || len(calls) != 24 || calls[0].Exit != 5 || !slices.Equal(calls[0].Argv, []string{"--activate", "ys", "shared/lv-0"}) {
		t.Errorf("%d calls, %v", len(calls), err)
	}
}

func TestReports(t *testing.T) {
	dir := machine(t)
	if r := call(dir, "lvchange --activate y local/lv"); r.code != 0 {
		t.Fatal(r)
	}
	for _, tt := range []struct{ line, kind, want string }{
		{"lvs --nolock --reportformat json -o lv_name,vg_name,lv_attr --select vg_name=local", "lv", `[{"lv_attr":"-wi-a-----","lv_name":"lv","vg_name":"local"}]`},
		{"lvs --nolock --reportformat=json -o lv_attr shared/lv-1", "lv", `[{"lv_attr":"-wi-------"}]`},
		{"lvs -v --reportformat json -olv_name shared", "lv", `[{"lv_name":"lv-0"},{"lv_name":"lv-1"}]`},
		{"lvs --reportformat json --select vg_name=none", "lv", `[]`},
		{"lvs --reportformat json -o lv_name -S vg_name=shared&&lv_name=lv-0", "lv", `[{"lv_name":"lv-0"}]`},
		{"vgs --nolock -v --reportformat json -o vg_name,vg_lock_type", "vg", `[{"vg_lock_type":"none","vg_name":"local"},{"vg_lock_type":"dlm","vg_name":"shared"}]`},
	} {
		r := call(dir, tt.line)
		var report struct{ Report []map[string]json.RawMessage }
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 0 || len(report.Report) != 1 {
			t.Errorf("%s: %+v %v", tt.line, r, err)
			continue
		}
		var got bytes.Buffer
		if err := json.Compact(&got, report.Report[0][tt.kind]); err != nil || got.String() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.line, got.String(), tt.want)
		}
	}
	if r := call(dir, "lvs -o all --nolock --reportformat json"); strings.Count(r.stdout, `"lv_path"`) != 3 {
		t.Errorf("-o all: %s", r.stdout)
	}
	if r := call(dir, "vgs local"); r.stdout != "  local wz--n- 1.00g\n" {
		t.Errorf("text report: %q", r.stdout)
	}
}

// Reports go to the descriptor in LVM_REPORT_FD, messages do not. A closed descriptor is
// an error. lvm2 behaves the same.
func TestReportDescriptor(t *testing.T) {
	dir := machine(t)
	f, err := os.CreateTemp(t.TempDir(), "report")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Setenv("LVM_REPORT_FD", strconv.Itoa(int(f.Fd())))
	const line = "vgs --nolock --config log{command_names=0} --reportformat json -o vg_name nowhere local"
	r := call(dir, line)
	if r.code != 5 || r.stdout != "" || !strings.Contains(r.stderr, `"nowhere" not found`) {
		t.Errorf("%+v", r)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !json.Valid(got) || !bytes.Contains(got, []byte(`"local"`)) {
		t.Errorf("report %q, %v", got, err)
	}
	t.Setenv("LVM_REPORT_FD", "9999")
	if r := call(dir, line); r.code != 4 || !strings.Contains(r.stderr, "Failed to open stream for file descriptor 9999.") {
		t.Errorf("a closed descriptor: %+v", r)
	}
}

// A missing namespace hides its volume, until a rescan and its delay.
func TestRescan(t *testing.T) {
	dir := machine(t)
	err := dir.Update(func(s *record.State) error {
		s.Namespaces = []*record.Namespace{{NQN: "nqn.a", NSID: 12, NeedsRescan: true, Late: time.Hour}, {NQN: "nqn.a", NSID: 3}}
		s.Volumes[0].NQN, s.Volumes[0].NSID = "nqn.a", 12
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	output := func(tool func(*toolbox) int, args ...string) string {
		var out, errs bytes.Buffer
		tool(&toolbox{dir: dir, args: args, stdout: &out, stderr: &errs, now: func() time.Time { return now }})
		return out.String() + errs.String()
	}
	step := func(when string, present bool) {
		t.Helper()
		list := output((*toolbox).nvme, "list", "-v", "--output-format=json")
		vols := output((*toolbox).lvs, "--reportformat", "json")
		if strings.Contains(list, `"NSID": 12`) != present || strings.Contains(vols, "local") != present || !strings.Contains(list, `"NSID": 3`) {
			t.Errorf("%s: want present=%t\n%s%s", when, present, list, vols)
		}
	}
	step("before", false)
	output((*toolbox).nvme, "ns-rescan", "/dev/nvme0")
	now = time.Now()
	step("after the rescan", false)
	output((*toolbox).nvme, "ns-rescan", "/dev/nvme0") // a second rescan does not restart the delay
	now = now.Add(time.Hour)
	step("after the delay", true)
}

func TestNVMeLayouts(t *testing.T) {
	dir := machine(t)
	for _, layout := range []int{0, 1, 2} {
		err := dir.Update(func(s *record.State) error {
			s.NVMeLayout, s.Namespaces = layout, []*record.Namespace{{NQN: "nqn.a", NSID: 1}, {NQN: "nqn.b", NSID: 2}}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		type subsystem struct {
			SubsystemNQN string
			Controllers  []struct{ Namespaces []struct{ NSID int } }
			Namespaces   []struct{ NSID int }
		}
		var list struct {
			Devices []struct {
				subsystem
				Subsystems []subsystem
			}
		}
		r := call(dir, "nvme list -v --output-format=json")
		if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
			t.Fatal(err)
		}
		if layout == 1 {
			if len(list.Devices) != 2 || list.Devices[1].SubsystemNQN != "nqn.b" || list.Devices[1].Controllers[0].Namespaces[0].NSID != 2 {
				t.Errorf("layout 1: %s", r.stdout)
			}
			continue
		}
		if len(list.Devices) != 1 || len(list.Devices[0].Subsystems) != 2 || list.Devices[0].Subsystems[1].Namespaces[0].NSID != 2 {
			t.Errorf("layout %d: %s", layout, r.stdout)
		}
	}
}

func TestLocksAndUnknownTools(t *testing.T) {
	dir := machine(t)
	call(dir, "vgchange --lock-start shared")
	if r := call(dir, "dlm_tool ls -n"); !strings.Contains(r.stdout, "lvm_shared") {
		t.Errorf("%+v", r)
	}
	if r := call(dir, "mkfs /dev/sda"); r.code != 127 {
		t.Errorf("%+v", r)
	}
	if r := call(dir, "mount.lustre nocolon /nowhere"); r.code != 32 || !strings.Contains(r.stderr, "<fsname>") {
		t.Errorf("%+v", r)
	}
	if r := call(dir, "mount.gfs2 /nonexistent /nowhere -o rw"); r.code != 32 {
		t.Errorf("%+v", r)
	}
}

// Concurrent calls do not lose changes or mix lines of the log.
func TestParallelCalls(t *testing.T) {
	dir := machine(t)
	done := make(chan result)
	for range 8 {
		go func() {
			var last result
			for _, line := range []string{"vgchange --lock-start shared", "lvchange -ay local/lv", "lvs --reportformat json"} {
				last = call(dir, line)
			}
			done <- last
		}()
	}
	for range 8 {
		if r := <-done; r.code != 0 {
			t.Errorf("%+v", r)
		}
	}
	calls, err := dir.Calls()
	s, _ := dir.Load()
	if err != nil || len(calls) != 24 || len(s.Locks) != 1 {
		t.Errorf("%d calls, locks %q, %v", len(calls), s.Locks, err)
	}
	for _, c := range calls {
		if c.End.IsZero() || c.Exit != 0 {
			t.Errorf("%+v", c)
		}
	}
}

func TestOptions(t *testing.T) {
	opts, words := options(strings.Fields("--a=1 x --b 2 -o3 -vq -S 4 -- -y"), "--b", "-o", "-S")
	want := map[string]string{"--a": "1", "--b": "2", "-o": "3", "-v": "", "-q": "", "-S": "4"}
	if len(opts) != len(want) || !slices.Equal(words, []string{"x", "-y"}) {
		t.Errorf("%q %q", opts, words)
	}
	for k, v := range want {
		if got, ok := opts[k]; !ok || got != v {
			t.Errorf("%s = %q, want %q", k, got, v)
		}
	}
}
