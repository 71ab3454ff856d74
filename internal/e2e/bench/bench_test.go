package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A short run of the whole bench. What does not depend on the machine's speed
// has to meet its target here as well.
func TestShortRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("real mounts need root")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "--json", "--settle=8s", "--window=1s", "--mounts=2", "--starts=2", "--processes=20")
	cmd.Env = append(os.Environ(), "CLIENTMOUNTD="+filepath.Join(root, "bin", "clientmountd"), "DEVCLUSTER="+filepath.Join(root, "bin", "devcluster"))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if strings.Contains(said.String(), "not possible on this machine") && os.Getenv("E2E_REQUIRE") == "" {
		t.Skip(said.String())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	figures := map[string]figure{}
	for _, f := range r.Figures {
		figures[f.Name] = f
		t.Logf("%-32s %8.2f %s", f.Name, f.judged(), f.Unit)
		if f.Runs == 0 || f.Name == "" || f.How == "" {
			t.Errorf("an empty figure: %+v", f)
		}
	}
	// Requests, writes and the size are the same on every machine.
	for name, most := range map[string]float64{"binary size": 12, "requests at start": 3, "watches": 1, "writes per ClientMount life": 4} {
		f, ok := figures[name]
		if !ok || f.Maximum > most || f.Maximum <= 0 || !f.OK || f.Target == nil || *f.Target != most {
			t.Errorf("%s: %+v, the promise is %v", name, f, most)
		}
	}
	// Memory hardly depends on it; the bounds leave room for a loaded machine.
	for name, most := range map[string]float64{"memory resident, one mount": 13, "memory anonymous, one mount": 5} {
		if f, ok := figures[name]; !ok || f.Maximum > most || f.Maximum < 0.5 {
			t.Errorf("%s: %+v, at most %v", name, f, most)
		}
	}
	if r.Machine.Kernel == "" || r.Machine.Go == "" || r.Machine.Daemon == "" || r.Machine.Cores == 0 {
		t.Errorf("nobody knows on which machine: %+v", r.Machine)
	}
}
