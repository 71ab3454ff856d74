package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// latency is the simulated time of a connection to a node.
const latency = 100 * time.Millisecond

// asSSH is set in the environment of the fake ssh of nnf-deploy.
const asSSH = "BENCH_AS_SSH"

// probed is the probe result of a node on which only the programs are installed.
const probed = `printf 'nnf-deploy\tprobe\t1\narch\tx86_64\nsystemd\t252\n'
printf 'file\t0\t755\troot:root\t/usr/bin/%s\n' clientmountd nnf-dm
printf 'end\n'
`

// ssh runs the command in a shell, like sshd. It replaces the script that nnf-deploy
// sends by one with a fixed result, because the time of a real probe depends on the node,
// not on nnf-deploy.
func ssh(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	time.Sleep(latency) // simulates the latency
	cmd := exec.Command("/bin/sh", "-c", args[len(args)-1])
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	feed, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	script, err := remote.ReadFrame(bufio.NewReader(os.Stdin), func(text string) string {
		return strings.Replace(text, "{ (\n", "{ (\n"+probed+"exit 0\n", 1) // keeps the wrapper
	})
	if err == nil {
		_, err = feed.Write(script)
	}
	return errors.Join(err, feed.Close(), cmd.Wait())
}

// fleet measures how long nnf-deploy takes to compare simulated nodes: with the default
// parallelism, and sequentially.
func (b *bench) fleet() {
	dir, err := os.MkdirTemp(b.Dir, "fleet")
	b.must(err)
	defer os.RemoveAll(dir)
	system := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for i := range b.simulated {
		system += fmt.Sprintf("  - name: compute-%04d\n", i+1)
	}
	program, err := lab.Binary(string(nnfDeploy))
	b.must(err)
	self, err := os.Executable()
	b.must(err)
	for path, text := range map[string]string{
		"ssh": "#!/bin/sh\n" + asSSH + "=1 exec '" + self + "' \"$@\"\n", "system.yaml": system, "clientmountd/service.token": "t", "clientmountd/service.cert": "c", "nnf-dm/service.token": "t", "nnf-dm/service.cert": "c",
	} {
		path = filepath.Join(dir, path)
		b.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)))
	}
	for _, p := range []struct {
		name     string
		parallel int
		target   float64
	}{
		// Twice the latency of the rounds of 32, because each node costs CPU time on this machine.
		{"nodes compared, 32 at once", 32, 2*latency.Seconds()*float64((b.simulated+31)/32) + 1},
		{"nodes compared, one after another", 1, noTarget},
	} {
		cmd := exec.CommandContext(b.tb.Context(), program, "install", "--dry-run", "--no-programs", "--parallel", strconv.Itoa(p.parallel),
			"--ssh", filepath.Join(dir, "ssh"), "--system-config", filepath.Join(dir, "system.yaml"), "--credentials", dir,
			"--kubernetes-service-host", "api", "--kubernetes-service-port", "6443")
		began := time.Now()
		out, err := cmd.CombinedOutput()
		if took := time.Since(began); err == nil && strings.Contains(string(out), fmt.Sprintf("%d nodes: %d would change", b.simulated, b.simulated)) {
			b.add(p.name, "s", p.target, true, []float64{took.Seconds()}, fmt.Sprintf("%d simulated nodes with a latency of %v", b.simulated, latency))
			continue
		}
		b.tb.Fatalf("nnf-deploy: unexpected result: %v: %.400s", err, out)
	}
}
