package container

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// slurm is a cluster of Slurm whose nodes have the installed daemons. The first node also runs the
// controller. alice submits the jobs.
type slurm struct {
	t     *testing.T
	nodes []storage
}

// slurmConf is the configuration of Slurm without control groups and accounting. The containers
// share the network of this machine, so each daemon has its own port.
const slurmConf = `ClusterName=test
SlurmctldHost=%[1]s(127.0.0.1)
SlurmctldPort=%[2]d
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/controller
SlurmdSpoolDir=/var/lib/slurm/node
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SchedulerParameters=sched_min_interval=0,sched_interval=1
BurstBufferType=burst_buffer/lua
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP
`

// burstBuffer replaces the burst buffer plugin of DWS, which controls the workflow of a job. It
// notes the states in files, and waits in PreRun and PostRun until the test has mounted and
// unmounted the storage.
const burstBuffer = `local function note(job, state) io.open("/tmp/workflow-" .. job .. "-" .. state, "w"):close() return slurm.SUCCESS end
local function await(job, state) os.execute("until [ -e /tmp/workflow-" .. job .. "-" .. state .. " ]; do sleep 0.1; done") return slurm.SUCCESS end
function slurm_bb_job_process() return slurm.SUCCESS end
function slurm_bb_pools() return slurm.SUCCESS end
function slurm_bb_setup() return slurm.SUCCESS end
function slurm_bb_data_in() return slurm.SUCCESS end
function slurm_bb_real_size() return slurm.SUCCESS end
function slurm_bb_paths() return slurm.SUCCESS end
function slurm_bb_pre_run(job) note(job, "PreRun") return await(job, "mounted") end
function slurm_bb_post_run(job) note(job, "PostRun") return await(job, "unmounted") end
function slurm_bb_data_out() return slurm.SUCCESS end
function slurm_bb_job_teardown() return slurm.SUCCESS end
function slurm_bb_get_status() return slurm.SUCCESS, "" end
`

// newSlurm boots the nodes, and installs and starts the daemons.
func newSlurm(t *testing.T, names ...string) *slurm {
	t.Helper()
	s := &slurm{t: t}
	for _, m := range machine.Containers(t, nil, names...) {
		m.Install()
		m.Configure()
		n := newStorage(t, m)
		n.start()
		s.nodes = append(s.nodes, n)
	}
	return s
}

// startSlurm starts the daemons of Slurm. The settings are added to slurm.conf.
func (s *slurm) startSlurm(settings string) {
	s.t.Helper()
	names := []string{}
	for _, n := range s.nodes {
		names = append(names, n.m.Name)
	}
	ports := freePorts(s.t, 1+len(names))
	conf := fmt.Sprintf(slurmConf, names[0], ports[0])
	for i, name := range names {
		conf += fmt.Sprintf("NodeName=%s NodeAddr=127.0.0.1 Port=%d CPUs=1\n", name, ports[1+i])
	}
	for i, n := range s.nodes {
		m := n.m
		m.Put("/etc/slurm/slurm.conf", 0o644, []byte(conf+settings))
		units := "munge slurmd"
		if i == 0 {
			m.Put("/etc/slurm/burst_buffer.conf", 0o644, []byte("Directive=DW\n"))
			m.Put("/etc/slurm/burst_buffer.lua", 0o644, []byte(burstBuffer))
			units = "munge slurmctld slurmd"
		}
		s.t.Cleanup(func() {
			if s.t.Failed() {
				s.t.Logf("%s:\n%s", m.Name, m.Journal("slurmctld -u slurmd -u clientmountd", "-n 150 -o short-precise"))
			}
		})
		m.Do("install -d -o slurm /var/lib/slurm/controller; cd /etc/systemd/system && rm munge.service slurmctld.service slurmd.service && systemctl daemon-reload && systemctl start " + units)
	}
	s.await("the nodes are idle", fmt.Sprintf(`[ "$(sinfo -h -t idle -o %%D)" = %d ]`, len(names)))
}

// freePorts returns ports that no process of this machine uses now.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// do runs a script on the node of the controller.
func (s *slurm) do(script string) string { s.t.Helper(); return s.nodes[0].m.Do(script) }

// await repeats a script on the node of the controller until it succeeds.
func (s *slurm) await(what, script string) string {
	s.t.Helper()
	return s.nodes[0].m.Await(what, script)
}

// submit submits a batch job that is held, and returns its ID. Its output is in /tmp/ID.out on its
// first node.
func (s *slurm) submit(options, script string) string {
	s.t.Helper()
	s.nodes[0].m.Put("/tmp/job.sh", 0o644, []byte("#!/bin/bash\n"+script+"\n"))
	return s.do("cd /tmp && runuser -u alice -- sbatch --parsable --hold -o /tmp/%j.out " + options + " /tmp/job.sh")
}

// release lets a job start.
func (s *slurm) release(id string) { s.t.Helper(); s.do("scontrol release " + id) }

// awaitJob waits until scontrol shows a text about a job.
func (s *slurm) awaitJob(id, text string) {
	s.t.Helper()
	s.await("job "+id+" has "+text, "scontrol show job "+id+" | grep -F '"+text+"'")
}

// idle waits until no node is drained or in use.
func (s *slurm) idle() {
	s.t.Helper()
	s.await("the nodes are idle", `[ "$(sinfo -h -o %T)" = idle ]`)
}

// set changes settings of the scripts on all nodes: lines of functions.sh.
func (s *slurm) set(lines ...string) {
	s.t.Helper()
	for _, n := range s.nodes {
		for _, line := range lines {
			name, _, _ := strings.Cut(line, "=")
			n.m.Do("cd /etc/clientmountd/workload-manager && grep -q ^" + name + "= functions.sh && sed -i 's|^" + name + "=.*|" + line + "|' functions.sh")
		}
	}
}

// TestSlurm runs jobs on two nodes with the scripts of the examples, installed and configured as
// docs/workload-managers.md describes.
func TestSlurm(t *testing.T) {
	machine.Need(t)
	s := newSlurm(t, "compute-01", "compute-02")
	if f := s.nodes[0].m.Fixture.Features; !f.Loop || !f.XFS {
		require.Missing(t, "needs loop devices and xfs")
	}
	const page = "docs/workload-managers.md"
	blocks := manual.Set{page: manual.Commands(t, fixture.Root(t), page, "internal/e2e/machine/container TestSlurm")}
	for _, part := range []string{"/etc/clientmountd/workload-manager", "/etc/nhc"} {
		block := blocks.Take(t, page, part)
		for _, n := range s.nodes {
			n.m.Do(block)
		}
	}
	text, err := os.ReadFile(filepath.Join(fixture.Root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	settings := ""
	for _, b := range manual.Blocks(string(text), "ini") {
		if strings.HasPrefix(b.Text, "# /etc/slurm/slurm.conf\n") {
			settings = b.Text
		}
	}
	if !strings.Contains(settings, "HealthCheckInterval=300\n") {
		t.Fatalf("%s has other settings: %s", page, settings)
	}
	s.startSlurm(strings.Replace(settings, "=300\n", "=2\n", 1))
	for _, c := range []struct {
		name string
		run  func(*slurm)
	}{
		{"no storage", jobWithoutStorage},
		{"burst buffer", jobWithBurstBuffer},
		{"late mount", lateMount},
		{"mount that fails", missingMount},
		{"busy unmount", busyUnmount},
		{"stuck unmount", func(s *slurm) {
			stuckUnmount(s, blocks.Take(s.t, page, "sinfo -R"), blocks.Take(s.t, page, "journalctl"))
		}},
		{"drained by an administrator", drainedByAdministrator},
		{"Flux", func(s *slurm) { flux(s, blocks.Take(s.t, page, "/etc/flux/system")) }},
	} {
		if !t.Run(c.name, func(t *testing.T) {
			sub := &slurm{t: t}
			for _, n := range s.nodes {
				n.t, n.m = t, n.m.For(t)
				sub.nodes = append(sub.nodes, n)
			}
			sub.set("mount_timeout=5m", "unmount_timeout=10m", "health_flags=()")
			c.run(sub)
			sub.idle()
		}) {
			break // a job or mount may be left
		}
	}
}
