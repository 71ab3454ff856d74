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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
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
// not apply to all nodes. It returns the ssh_config and the number of connections that are open.
func sshdPerNode(t *testing.T, s *testFleet, count int) (config string, open *atomic.Int64) {
	t.Helper()
	require.Tool(t, "/usr/sbin/sshd", "ssh", "ssh-keygen")
	sshd.Directory(t)
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
	// The algorithms need little processor time.
	return s.sshConfig(hosts.String(), "  KexAlgorithms ecdh-sha2-nistp256\n", "  Ciphers aes128-gcm@openssh.com\n"), open
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

// observe returns the largest figures of a process until it has exited.
func observe(pid int, exited <-chan struct{}) (most lab.Usage) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if u, err := lab.ReadUsage(pid); err == nil { // the process may have exited
			most.Files, most.Threads, most.RSS, most.CPU = max(most.Files, u.Files), max(most.Threads, u.Threads), max(most.RSS, u.RSS), max(most.CPU, u.CPU)
		}
		select {
		case <-exited:
			return most
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
// no process.
func TestSessions(t *testing.T) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv(sessionNodes), "100"))
	if err != nil {
		t.Fatal(err)
	}
	s := newTestFleet(t, 0)
	config, open := sshdPerNode(t, s, nodes)
	s.system(nodes)
	status := s.statusCommand(config, "--connect-timeout", "5m", "--node-timeout", "20m", "--parallel", "512")
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -Sn 1024; exec "$0" "$@"`}, status.Args...)...)
	cmd.Env = status.Env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	started := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited, observed := make(chan struct{}), make(chan lab.Usage, 1)
	go func() { observed <- observe(cmd.Process.Pid, exited) }()
	err = cmd.Wait()
	took := time.Since(started).Seconds()
	close(exited)
	p := <-observed
	cpu := p.CPU.Seconds() * 1000 / float64(nodes)
	t.Logf("%d nodes in %.1f s; nnf-deploy: %.2f ms of processor time per node, %d files, %d threads, %d kB resident", nodes,
		took, cpu, p.Files, p.Threads, p.RSS/1000)
	allAnswer(t, err, out.Bytes(), &errs, nodes)
	if most := remote.OpenFiles(nodes); p.Files > most {
		t.Errorf("%d open files, want at most %d", p.Files, most)
	}
	if p.Threads > 64 {
		t.Errorf("%d threads", p.Threads)
	}
	if path := os.Getenv(sessionFigures); path != "" && !t.Failed() {
		data, err := json.Marshal(map[string]float64{"nodes": float64(nodes), "seconds": took, "cpu_ms_per_node": cpu, "files": float64(p.Files), "threads": float64(p.Threads), "resident_mb": float64(p.RSS) / 1e6})
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
