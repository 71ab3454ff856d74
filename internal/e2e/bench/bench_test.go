package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/budget"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// A short run of the whole benchmark. Figures that do not depend on the speed of the
// machine must meet their targets.
func TestShortRun(t *testing.T) {
	dir := build(t)
	for name, pkg := range map[string]string{scaleTest: "internal/cli/deploy", sessionTest: "cmd/nnf-deploy"} {
		build := exec.Command("go", "test", "-buildvcs=false", "-c", "-o", filepath.Join(dir, name), "./"+pkg)
		build.Dir = root(t)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, fleetProgram), "../fleetsim").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, figures := play(t, dir, "--settle=6500ms", "--window=1s", "--mounts=2", "--starts=2", "--processes=20",
		"--clients=50", "--connections=1100", "--polls=100", "--waits=5", "--nodes=40", "--fleet=20", "--scale=600", "--sessions=20")
	// Requests, writes and the size are the same on every machine.
	for name, want := range map[string]struct{ least, most float64 }{
		"clientmountd: binary size":                            {1, float64(budget.MaxSize("clientmountd")) / 1e6},
		"clientmountd: requests at start":                      {1, 2},
		"clientmountd: watches":                                {1, 1},
		"clientmountd: writes per ClientMount life":            {1, 4},
		"nnf-dm: binary size":                                  {1, float64(budget.MaxSize("nnf-dm")) / 1e6},
		"clientmountd: reads per ClientMount life":             {1, 2},
		"nnf-dm: requests at start":                            {0, 0},
		"nnf-dm: requests per create, warm":                    {1, 2},
		"nnf-dm: requests per poll":                            {0, 0},
		"clientmountd: start of many nodes, requests per node": {2, 2},
		"clientmountd: job on many nodes, reads per node":      {2, 2},
	} {
		f, ok := figures[name]
		if !ok || f.Maximum > want.most || f.Minimum < want.least || !f.OK || f.Target == nil || *f.Target != want.most {
			t.Errorf("%s: %+v, want at most %v", name, f, want.most)
		}
	}
	// Memory hardly depends on the speed; the limits have a margin for a loaded machine.
	for name, most := range map[string]float64{
		"clientmountd: memory resident, one mount": 13, "clientmountd: memory anonymous, one mount": 5,
		"nnf-dm: memory resident, no client": 11, "nnf-dm: memory resident, 50 clients": 13,
		"nnf-dm: memory resident then, default limits": 64,
	} {
		if f, ok := figures[name]; !ok || f.Maximum > most || f.Maximum < 0.5 {
			t.Errorf("%s: %+v, at most %v", name, f, most)
		}
	}
	// make bench checks context switches; here they are only counted.
	for name, want := range map[string]float64{
		"clientmountd: context switches idle, no mount": 8, "clientmountd: context switches idle, token of the node": 8,
		"clientmountd: context switches idle, added by the token of the node": moreSwitches,
	} {
		if f, ok := figures[name]; !ok || f.Target == nil || *f.Target != want {
			t.Errorf("%s: %+v", name, f)
		}
	}
	// make bench checks the times; here they only have to be plausible.
	for _, name := range []string{
		"nnf-dm: exec to first response", "nnf-dm: status, p99", "nnf-dm: wake-up of a wait, p99",
		"nnf-dm: status among idle connections, p99, limits raised", "nnf-deploy: nodes compared, 32 at once",
	} {
		if f := figures[name]; f.Median <= 0 || f.Median > 5000 || f.Target == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
	at, one := figures["nnf-deploy: nodes compared, 32 at once"], figures["nnf-deploy: nodes compared, one after another"]
	if at.Median >= one.Median {
		t.Errorf("nodes in parallel %+v, sequentially %+v", at, one)
	}
	for name, want := range map[string]float64{
		"nnf-deploy: processor time per node, upgrade": scaleTarget, "nnf-deploy: memory resident, many nodes": memoryTarget, "nnf-deploy: output on the screen, many nodes": 100,
	} {
		if f, ok := figures[name]; !ok || f.Median <= 0 || f.Target == nil || *f.Target != want {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if slow, fast := figures["nnf-deploy: upgrade, 32 at once"], figures["nnf-deploy: upgrade, 512 at once"]; fast.Median <= 0 || fast.Median > slow.Median {
		t.Errorf("upgrade, 512 at once %+v, 32 at once %+v", fast, slow)
	}
	if r.Machine.Kernel == "" || r.Machine.Go == "" || r.Machine.Daemon == "" || r.Machine.Cores == 0 {
		t.Errorf("incomplete data about the machine: %+v", r.Machine)
	}
}

// A short soak. Everything that does not depend on its length must meet the targets.
func TestShortSoak(t *testing.T) {
	_, figures := play(t, build(t), "--soak", "--lives=60", "--creates=600", "--samples=6", "--settle=1s", "--idle=1s")
	for _, p := range []string{"clientmountd: ", "nnf-dm: "} {
		for _, name := range []string{"growth of the resident memory", "growth of the anonymous memory", "context switches in 24 h idle", "growth of the resident memory, idle"} {
			if figures[p+name].Target == nil {
				t.Errorf("%s%s: %+v has no target", p, name, figures[p+name])
			}
		}
	}
	for name, want := range map[string]float64{
		"clientmountd: lives": 60, "nnf-dm: creates": 600,
		"clientmountd: records left": 0, "clientmountd: ClientMounts left": 0, "clientmountd: mounts, volumes and processes left": 0,
		"nnf-dm: data movements left":                          0,
		"clientmountd: goroutines, more than in a new process": 0, "nnf-dm: goroutines, more than in a new process": 0,
	} {
		if f, ok := figures[name]; !ok || f.Target == nil || *f.Target != want || f.Median != want || !f.OK {
			t.Errorf("%s: %+v, want %v", name, f, want)
		}
	}
	for name, most := range map[string]float64{
		"clientmountd: open files": 16, "clientmountd: threads": 16, "nnf-dm: open files": 24, "nnf-dm: threads": 16,
		"clientmountd: resident memory, MB": 13, "nnf-dm: resident memory, MB": 32,
	} {
		if f, ok := figures[name]; !ok || f.Runs != 3 || f.Minimum < 0.5 || f.Maximum > most {
			t.Errorf("%s: %+v, at most %v", name, f, most)
		}
	}
}

// root returns the root directory of the repository.
func root(t *testing.T) string {
	dir, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// build builds the benchmark and returns the directory with the program.
func build(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("real mounts need root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "bench"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// play runs the benchmark and returns its report, and the figures by program and name.
func play(t *testing.T, dir string, args ...string) (r report, figures map[string]figure) {
	t.Helper()
	bin := filepath.Join(root(t), "bin")
	cmd := exec.Command(filepath.Join(dir, "bench"), append([]string{"--json"}, args...)...)
	cmd.Env = append(os.Environ(), "CLIENTMOUNTD="+filepath.Join(bin, "clientmountd"),
		"NNF_DM="+filepath.Join(bin, "nnf-dm"), "NNF_DEPLOY="+filepath.Join(bin, "nnf-deploy"), "DEVCLUSTER="+filepath.Join(bin, "devcluster"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if strings.Contains(stderr.String(), "not possible on this machine") && !require.Set() {
		t.Skip(stderr.String())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	figures = map[string]figure{}
	for _, f := range r.Figures {
		key := string(f.Program) + ": " + f.Name
		if _, twice := figures[key]; twice || f.Program == "" {
			t.Errorf("a duplicate figure, or one without a program: %+v", f)
		}
		figures[key] = f
		t.Logf("%-70s %8.2f %s", key, f.judged(), f.Unit)
		if f.Runs == 0 || f.Name == "" || f.How == "" {
			t.Errorf("an incomplete figure: %+v", f)
		}
	}
	return r, figures
}
