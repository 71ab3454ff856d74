package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// The tests that measure nnf-deploy with many nodes, as programs, and their variables.
const (
	scaleTest, sessionTest = "nnf-deploy-scale.test", "nnf-deploy-sessions.test"

	scaleTarget  = 20.0  // ms of processor time per node
	memoryTarget = 300.0 // MB

	identitiesTarget = 900.0 // s
)

// measuredBy runs one test of a test program, which writes its figures as JSON.
func (b *bench) measuredBy(program, test, variable string, nodes int, figures any) {
	path, err := lab.Binary(program)
	b.must(err)
	dir, err := os.MkdirTemp(b.Dir, "scale")
	b.must(err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "figures.json")
	cmd := exec.CommandContext(b.tb.Context(), path, "-test.run", "^"+test+"$", "-test.v", "-test.timeout", "30m")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), variable+"_NODES="+strconv.Itoa(nodes), variable+"_FIGURES="+file)
	out, err := cmd.CombinedOutput()
	data, rerr := os.ReadFile(file)
	if err = errors.Join(err, rerr); err == nil {
		err = json.Unmarshal(data, figures)
	}
	if err != nil {
		b.tb.Fatalf("%s: %v\n%.4000s", program, err, out)
	}
}

// scale measures nnf-deploy with many nodes in virtual time.
func (b *bench) scale() {
	var runs []struct {
		Run      string  `json:"run"`
		Parallel int     `json:"parallel"`
		Seconds  float64 `json:"virtual_seconds"`
		CPU      float64 `json:"cpu_ms_per_node"`
		Memory   float64 `json:"resident_mb"`
		Screen   float64 `json:"screen_bytes"`
		JSON     float64 `json:"json_bytes"`
		Results  float64 `json:"results_bytes"`
	}
	b.measuredBy(scaleTest, "TestScale", "DEPLOY_SCALE", b.nodesAtScale, &runs)
	how := fmt.Sprintf("%d nodes in virtual time, with delays of real nodes", b.nodesAtScale)
	processor, memory, screen, document, results := map[string][]float64{}, []float64{}, []float64{}, []float64{}, []float64{}
	for _, r := range runs {
		memory, screen, document, results = append(memory, r.Memory), append(screen, r.Screen/1000), append(document, r.JSON/1e6), append(results, r.Results/1e6)
		name, text, _ := strings.Cut(r.Run, ", ")
		processor[name] = append(processor[name], r.CPU)
		if text == "" {
			b.add(fmt.Sprintf("%s, %d at once", name, r.Parallel), "s", noTarget, false, []float64{r.Seconds}, how)
		}
	}
	for _, name := range []string{"nothing to change", "upgrade"} {
		b.add("processor time per node, "+name, "ms", scaleTarget, true, processor[name], how+"; without starting ssh")
	}
	b.add("memory resident, many nodes", "MB", memoryTarget, true, memory, how+"; includes the simulated nodes")
	b.add("output on the screen, many nodes", "kB", 100, true, screen, how)
	b.add("output as JSON, many nodes", "MB", noTarget, true, document, how)
	b.add("results file, many nodes", "MB", noTarget, true, results, how)
}

// identities measures nnf-deploy identities with many nodes in virtual time.
func (b *bench) identities() {
	var runs []struct {
		Run     string  `json:"run"`
		Seconds float64 `json:"virtual_seconds"`
		CPU     float64 `json:"cpu_ms_per_node"`
	}
	b.measuredBy(scaleTest, "TestIdentitiesScale", "DEPLOY_SCALE", b.nodesAtScale, &runs)
	how := fmt.Sprintf("%d nodes in virtual time; the API server takes 12 ms for a write; 16 requests at once", b.nodesAtScale)
	for i, r := range runs {
		target := float64(noTarget)
		if i == 0 {
			target = identitiesTarget
		}
		b.add(r.Run, "s", target, false, []float64{r.Seconds}, how)
		b.add("processor time per node, "+r.Run, "ms", scaleTarget, false, []float64{r.CPU}, how+"; includes the simulated API server")
	}
}

// realSessions measures nnf-deploy with the real ssh, one sshd per node. It needs root, because
// sshd does.
func (b *bench) realSessions() {
	mapping, _ := os.ReadFile("/proc/self/uid_map")
	if _, err := exec.LookPath("/usr/sbin/sshd"); err != nil || os.Getuid() != 0 || len(strings.Fields(string(mapping))) < 3 || strings.Fields(string(mapping))[2] == "1" {
		b.say("not measured, because it needs root and sshd: ssh sessions")
		return
	}
	var f map[string]float64
	b.measuredBy(sessionTest, "TestSessions", "DEPLOY_SESSION", b.sessions, &f)
	how := fmt.Sprintf("nnf-deploy status of %d nodes, --parallel 512, real ssh and sshd on this machine", b.sessions)
	for _, row := range []struct {
		name, unit, key string
		target          float64
	}{
		{"ssh sessions", "s", "seconds", noTarget},
		{"processor time per ssh session", "ms", "cpu_ms_per_node", scaleTarget},
		{"open files, ssh sessions", "", "files", 64 + 6*512},
		{"threads, ssh sessions", "", "threads", 64},
		{"memory resident, ssh sessions", "MB", "resident_mb", memoryTarget},
	} {
		b.add(row.name, row.unit, row.target, true, []float64{f[row.key]}, how)
	}
}
