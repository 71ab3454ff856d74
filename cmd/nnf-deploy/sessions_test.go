package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/sshd"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// answer is the command that each session of TestSessions runs instead of that of nnf-deploy. It
// has the same answer as a node without any installation, at a small part of its cost, so that the
// test shows nnf-deploy, ssh and sshd.
const answer = `#!/bin/sh
m=${SSH_ORIGINAL_COMMAND#*n=} m=nnf-deploy:${m%%;*} lines=0
say() { printf '%s %s %s\n' "$m" "${#1}" "$1"; lines=$((lines + 1)); }
printf '\n%s ready\n' "$m"
read -r _ size _
head -c "$size" >/dev/null
echo "$m started"
while read -r line && [ "$line" != end ]; do :; done
t='	'
say "nnf-deploy${t}probe${t}1"
say "arch${t}x86_64"
say "systemd${t}252"
say end
echo "$m exit 0 $lines"
`

// sshdPerNode gives each of count nodes its own sshd, as real nodes have, on its own loopback
// address: an sshd is started for each connection, so that the limit MaxStartups of one sshd does
// not apply to all nodes. The algorithms are those that need little processor time. It returns the ssh_config and the number of connections that are open.
func sshdPerNode(t *testing.T, s *testFleet, count int) (config string, open *atomic.Int64) {
	t.Helper()
	require.Tool(t, "/usr/sbin/sshd", "ssh", "ssh-keygen")
	sshd.Directory(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.keys()
	s.write("answer", answer)
	s.write("sshd_config", fmt.Sprintf(`HostKey %[1]s/host
AuthorizedKeysFile %[1]s/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
LogLevel ERROR
ForceCommand sh %[1]s/answer
`, s.bin))
	var hosts strings.Builder
	open = new(atomic.Int64)
	var sessions sync.WaitGroup
	t.Cleanup(sessions.Wait) // after the listeners are closed
	for i := range count {
		address := fmt.Sprintf("127.7.%d.%d", i/250, 1+i%250)
		l, err := net.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&hosts, "Host compute-%03d\n  HostName %s\n  Port %d\n", i+1, address, l.Addr().(*net.TCPAddr).Port)
		sessions.Go(func() { serve(t, l, s.bin, &sessions, open) })
		t.Cleanup(func() { l.Close() })
	}
	s.write("ssh_config", hosts.String()+fmt.Sprintf(`Host *
  User %s
  IdentityFile %s/key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
  KexAlgorithms ecdh-sha2-nistp256
  Ciphers aes128-gcm@openssh.com
`, me.Username, s.bin))
	return filepath.Join(s.bin, "ssh_config"), open
}

// serve starts an sshd for each connection until the listener is closed.
func serve(t *testing.T, l net.Listener, dir string, sessions *sync.WaitGroup, open *atomic.Int64) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			t.Error(err)
			return
		}
		f, err := c.(*net.TCPConn).File()
		c.Close()
		if err != nil {
			t.Error(err)
			return
		}
		cmd := exec.Command("/usr/sbin/sshd", "-i", "-f", filepath.Join(dir, "sshd_config"))
		cmd.Stdin, cmd.Stdout = f, f
		if err = cmd.Start(); err != nil {
			t.Error(err)
		}
		f.Close()
		if err == nil {
			open.Add(1)
			sessions.Go(func() {
				defer open.Add(-1)
				_ = cmd.Wait() // the client reports errors
			})
		}
	}
}

// peak has the largest numbers of a process while it runs, and its processor time.
type peak struct {
	files, threads, resident int
	processor                time.Duration
}

// observe reads the numbers of a process until it has exited.
func observe(pid int, exited <-chan struct{}) (p peak) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	dir := fmt.Sprintf("/proc/%d/", pid)
	for {
		files, _ := os.ReadDir(dir + "fd") // the process may have exited
		p.files = max(p.files, len(files))
		status, _ := os.ReadFile(dir + "status")
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			switch name {
			case "Threads":
				p.threads = max(p.threads, n)
			case "VmHWM":
				p.resident = max(p.resident, n)
			}
		}
		stat, _ := os.ReadFile(dir + "stat")
		if _, rest, ok := strings.Cut(string(stat), ") "); ok {
			if f := strings.Fields(rest); len(f) > 12 { // user and system time, in units of 10 ms
				user, _ := strconv.Atoi(f[11])
				system, _ := strconv.Atoi(f[12])
				p.processor = max(p.processor, time.Duration(user+system)*10*time.Millisecond)
			}
		}
		select {
		case <-exited:
			return p
		case <-tick.C:
		}
	}
}

// The benchmark sets these variables for the number of nodes of TestSessions, and the file
// to which it writes its figures.
const (
	sessionNodes   = "DEPLOY_SESSION_NODES"
	sessionFigures = "DEPLOY_SESSION_FIGURES"
)

// With --parallel 512, nnf-deploy reaches all nodes at the same time with the real ssh, with the
// usual soft limit of 1024 open files. It needs a bounded number of files and threads, and leaves
// no process. The time limits are long, because all nodes share the processors of this machine.
func TestSessions(t *testing.T) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv(sessionNodes), "100"))
	if err != nil {
		t.Fatal(err)
	}
	s := newTestFleet(t, 0)
	config, open := sshdPerNode(t, s, nodes)
	s.system(nodes)
	cmd := exec.Command("sh", "-c", `ulimit -Sn 1024; exec "$0" "$@"`, filepath.Join(s.bin, deploy.Name), "status", "-o", "json", "--parallel", "512",
		"--connect-timeout", "5m", "--node-timeout", "20m", "--ssh-option", "-F"+config, "--system-config", filepath.Join(s.bin, "system.yaml"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.bin}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	started := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited, observed := make(chan struct{}), make(chan peak, 1)
	go func() { observed <- observe(cmd.Process.Pid, exited) }()
	err = cmd.Wait()
	took := time.Since(started).Seconds()
	close(exited)
	p := <-observed
	cpu := p.processor.Seconds() * 1000 / float64(nodes)
	t.Logf("%d nodes in %.1f s; nnf-deploy: %.2f ms of processor time per node, %d files, %d threads, %d kB resident", nodes,
		took, cpu, p.files, p.threads, p.resident)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) { // exit code 1, because nothing is installed
		t.Fatal(err)
	}
	var answer struct {
		Nodes []struct {
			Node, Cause string
			Answers     bool
		}
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || len(answer.Nodes) != nodes {
		t.Fatalf("%d nodes, %v\n%s", len(answer.Nodes), err, &errs)
	}
	for _, n := range answer.Nodes {
		if !n.Answers {
			t.Errorf("%s: %s", n.Node, n.Cause)
		}
	}
	if most := remote.OpenFiles(nodes); p.files > most {
		t.Errorf("%d open files, want at most %d", p.files, most)
	}
	if p.threads > 64 {
		t.Errorf("%d threads", p.threads)
	}
	if path := os.Getenv(sessionFigures); path != "" && !t.Failed() {
		data, err := json.Marshal(map[string]float64{"nodes": float64(nodes), "seconds": took, "cpu_ms_per_node": cpu, "files": float64(p.files), "threads": float64(p.threads), "resident_mb": float64(p.resident) * 1024 / 1e6})
		if err = errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "the end of all sessions on the nodes", func() bool { return open.Load() == 0 })
	if left := processesOf(t, s.bin); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}

// If the limit of open files cannot be raised, nnf-deploy works on fewer nodes at the same time, and
// prints what to do.
func TestFewOpenFiles(t *testing.T) {
	s := newTestFleet(t, 20)
	s.credentials("old")
	run, out := s.command("--parallel", "512", "--dry-run")
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -n 100; exec "$0" "$@"`}, run.Args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = run.Env, out, out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"nnf-deploy: note: working on 6 nodes at the same time: --parallel 512 needs 3136 open files, but the limit is 100; raise the hard limit with ulimit -Hn\n",
		"nnf-deploy: 20 nodes: 20 would change\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

// system writes a SystemConfiguration with count nodes.
func (s *testFleet) system(count int) {
	text := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for i := range count {
		text += fmt.Sprintf("  - name: compute-%03d\n", i+1)
	}
	s.write("system.yaml", text)
}

// processesOf returns the command lines of the processes that have a path below dir in their
// command line.
func processesOf(t *testing.T, dir string) (list []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	for _, path := range all {
		line, _ := os.ReadFile(path) // the process may have exited
		if strings.Contains(string(line), dir+"/") {
			list = append(list, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return list
}
