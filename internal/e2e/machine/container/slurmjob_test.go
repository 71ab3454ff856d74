package container

import (
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
)

// mount creates a ClientMount of the workflow of a job on a node, like the rabbit for the burst
// buffer plugin of DWS. It is mounted at /mnt/nnf/NAME.
func (n storage) mount(job, name string, index int) {
	n.t.Helper()
	mount, _ := n.xfs(name, index)
	f := n.m.Fixture
	f.Apply(fixture.ClientMount(name, f.Node, fixture.ClientMountSpec{Profile: f.Profile, OwnerUID: f.Owner, Job: job, Workflow: "bb" + job, Mounts: []fixture.MountSpec{mount}}))
}

// waits waits until clientmountd wait runs on the node. The scripts also ask for the state without
// waiting, with the time limit 0s.
func (n storage) waits(state string) {
	n.t.Helper()
	n.m.Await("the job waits until its storage is "+state, "pgrep -f '[c]lientmountd wait .*--for "+state+" --timeout [1-9]'")
}

// visible makes the volumes of the node visible for LVM, or invisible.
func (n storage) visible(yes bool) {
	n.t.Helper()
	if err := n.tools.Update(func(s *record.State) error {
		for _, v := range s.Volumes {
			if v.Appears = (time.Time{}); !yes {
				v.Appears = time.Now().Add(time.Hour)
			}
		}
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
}

// A job without a workflow runs, and does not wait.
func jobWithoutStorage(s *slurm) {
	id := s.submit("-N 2", "srun hostname | sort")
	s.release(id)
	s.awaitJob(id, "JobState=COMPLETED")
	if out := s.do("cat /tmp/" + id + ".out"); out != "compute-01\ncompute-02" {
		s.t.Errorf("the output is %s", out)
	}
}

// Slurm starts the prolog when the burst buffer plugin has reached PreRun, and runs the epilog
// while the plugin is in PostRun, which unmounts the storage.
func jobWithBurstBuffer(s *slurm) {
	for _, n := range s.nodes {
		n.m.Do("cd /etc/clientmountd/workload-manager && sed -i.saved '2i : >/tmp/prolog-$SLURM_JOB_ID' prolog.sh")
	}
	id := s.submit("-N 2", "#DW jobdw type=xfs name=scratch\nsrun findmnt -n -o FSTYPE /mnt/nnf/scratch")
	s.release(id)
	s.await("the plugin is in PreRun", "ls /tmp/workflow-"+id+"-PreRun")
	for i, n := range s.nodes {
		n.mount(id, "scratch", 3+i)
		n.m.Fixture.Await("scratch", "mounted")
		n.m.Do("[ ! -e /tmp/prolog-" + id + " ]")
	}
	s.do("touch /tmp/workflow-" + id + "-mounted")
	s.await("the plugin is in PostRun", "ls /tmp/workflow-"+id+"-PostRun")
	for _, n := range s.nodes {
		n.waits("unmounted")
		n.m.Do("cd /etc/clientmountd/workload-manager && mv prolog.sh.saved prolog.sh && [ -e /tmp/prolog-" + id + " ]")
	}
	if out := s.do("cat /tmp/" + id + ".out"); out != "xfs\nxfs" {
		s.t.Errorf("the output is %s", out)
	}
	s.unmount("scratch")
	s.do("touch /tmp/workflow-" + id + "-unmounted")
	s.awaitJob(id, "JobState=COMPLETED")
}

// A job whose storage is late on one node starts when it is there.
func lateMount(s *slurm) {
	id := s.submit("-N 2", "srun findmnt -n -o FSTYPE /mnt/nnf/late")
	for i, n := range s.nodes {
		n.mount(id, "late", 3+i)
		n.visible(i != 1)
	}
	s.nodes[0].m.Fixture.Await("late", "mounted")
	s.nodes[1].m.Fixture.AwaitError("late")
	s.release(id)
	s.nodes[1].waits("mounted")
	s.nodes[0].m.Await("the node with storage does not wait", "! pgrep -f '[c]lientmountd wait '")
	if out := s.do("ls /tmp/" + id + ".out 2>&1 || :; scontrol show job " + id); !strings.Contains(out, "No such file") || !strings.Contains(out, "JobState=RUNNING") {
		s.t.Errorf("the job has started without its storage: %s", out)
	}
	s.nodes[1].visible(true)
	s.nodes[1].waits("unmounted") // the job has ended
	if out := s.do("cat /tmp/" + id + ".out"); out != "xfs\nxfs" {
		s.t.Errorf("the output is %s", out)
	}
	s.unmount("late")
	s.awaitJob(id, "JobState=COMPLETED")
}

// unmount unmounts and deletes a ClientMount of all nodes.
func (s *slurm) unmount(name string) {
	s.t.Helper()
	for _, n := range s.nodes {
		n.m.Fixture.Unmount(name)
		n.m.Fixture.Delete(name)
	}
}

// A job whose storage does not come does not start, and has the reason. Its nodes are not drained,
// because they are not the cause.
func missingMount(s *slurm) {
	s.set("mount_timeout=3s")
	id := s.submit("-N 2", "echo started")
	for i, n := range s.nodes {
		n.mount(id, "missing", 3+i)
		n.visible(i != 1)
	}
	s.nodes[1].m.Fixture.AwaitError("missing")
	s.release(id)
	s.awaitJob(id, "Reason=job_requeued_in_held_state")
	s.awaitJob(id, "AdminComment=clientmountd on compute-02: not mounted within 3s: mount of /mnt/nnf/missing ")
	s.nodes[1].visible(true)
	s.unmount("missing")
	s.idle()
	s.do("[ ! -e /tmp/" + id + ".out ] && scancel " + id)

	s.t.Log("a job that cannot be put back into the queue is cancelled")
	s.nodes[1].mount("0", "hidden", 4)
	s.nodes[1].visible(false)
	s.nodes[1].m.Fixture.AwaitError("hidden")
	for _, n := range s.nodes {
		n.m.Do("sed -i.saved 's|^workflow_of_job.*|workflow_of_job() { echo bb0; }|' /etc/clientmountd/workload-manager/slurm.sh")
	}
	if out := exits(s.t, s.nodes[0].m, 1, "cd /tmp && runuser -u alice -- srun -N 2 -J interactive echo started"); strings.Contains(out, "started") {
		s.t.Errorf("the job has started: %s", out)
	}
	s.nodes[1].visible(true)
	s.nodes[1].m.Fixture.Delete("hidden") // its epilog waits for that
	s.await("the job is cancelled", "scontrol show job | grep -A 5 JobName=interactive | grep JobState=CANCELLED")
	for _, n := range s.nodes {
		n.m.Do("cd /etc/clientmountd/workload-manager && mv slurm.sh.saved slurm.sh")
	}
}

// A process of a user that keeps the storage in use does not drain the node: clientmountd unmounts
// when it has ended.
func busyUnmount(s *slurm) {
	s.set("unmount_timeout=3s")
	n := s.nodes[0]
	id := s.submit("-N 1 -w compute-01", "echo done")
	n.mount(id, "busy", 3)
	n.m.Fixture.Await("busy", "mounted")
	n.m.Do("runuser -u alice -- sh -c 'cd /mnt/nnf/busy && exec sleep 1000' >/dev/null 2>&1 </dev/null &")
	pid := n.m.Await("the process runs", "pgrep -u alice -x sleep")
	s.release(id)
	n.waits("unmounted")
	n.m.Fixture.Want("busy", "unmounted")
	s.awaitJob(id, "JobState=COMPLETED")
	s.idle()
	has(s.t, n.m.Do("journalctl --sync; journalctl -b -t clientmountd-epilog"), "the storage of workflow bb"+id+" is not unmounted: not unmounted within 3s: unmount of /mnt/nnf/busy ")
	n.m.Do("kill " + pid)
	n.m.Fixture.Await("busy", "unmounted")
	n.m.Fixture.Delete("busy")
}

// A command of an unmount hangs in the kernel. The node is drained with the verdict as the reason,
// the other node of the job is not. When the command has ended, the node returns to service.
func stuckUnmount(s *slurm, show, journal string) {
	s.set("unmount_timeout=5s", "health_flags=(--grace-stuck 1s)")
	id := s.submit("-N 2", "srun hostname")
	bad := s.nodes[1]
	frozen, _ := bad.xfs("frozen", 6)
	bad.m.Fixture.MountAndWait("frozen", frozen)
	for i, n := range s.nodes {
		n.mount(id, "stuck", 3+i)
		n.m.Fixture.Await("stuck", "mounted")
	}
	bad.m.Do("fsfreeze -f /mnt/nnf/frozen")
	thawed := false
	thaw := func() {
		if !thawed {
			bad.m.Do("fsfreeze -u /mnt/nnf/frozen")
			thawed = true
		}
	}
	defer thaw()
	bad.faults(&record.Fault{Tool: "lvchange", Match: "--activate n", Touch: "/mnt/nnf/frozen/x"})
	s.release(id)
	for _, n := range s.nodes {
		n.waits("unmounted")
		n.m.Fixture.Want("stuck", "unmounted")
	}
	s.await("the node is drained", `[ "$(sinfo -h -n compute-02 -o %T)" = drained ]`)
	has(s.t, s.do(show), "compute-02 root ", "clientmountd: unmount of /mnt/nnf/stuck stuck for ", ": lvchange (pid ")
	has(s.t, s.do("scontrol show node compute-02"), "State=IDLE+DRAIN", ": lvchange (pid ", " waits in the kernel")
	has(s.t, bad.checkNHC(), "die 1 check_clientmountd:  unmount of /mnt/nnf/stuck stuck for ")
	s.await("the other node is in service", `[ "$(sinfo -h -n compute-01 -o %T)" = idle ]`)
	s.awaitJob(id, "JobState=COMPLETED")

	bad.faults()
	thaw()
	s.idle()
	has(s.t, bad.m.Do("journalctl --sync; "+journal), "job "+id+": the storage of workflow bb"+id+" is not unmounted", "compute-02 must be drained: ", "put compute-02 back into service")
	s.unmount("stuck")
	bad.m.Fixture.Delete("frozen")
	if out := bad.checkNHC(); out != "" {
		s.t.Errorf("the check for NHC reports %s", out)
	}
}

// checkNHC runs the check of /etc/nhc/nhc.conf. die is a function of NHC, which drains the node.
func (n storage) checkNHC() string {
	n.t.Helper()
	return n.m.Do(`die() { echo "die $*"; }; . /etc/nhc/scripts/clientmountd.nhc; check=$(sed 's/^. || //' /etc/nhc/nhc.conf); $check --grace-stuck 1s || :`)
}

// A node that an administrator has drained stays drained, whatever the state of its storage.
func drainedByAdministrator(s *slurm) {
	n := s.nodes[1]
	s.do("scontrol update NodeName=compute-02 State=DRAIN Reason='replace the memory'")
	n.m.Do("rm -f /run/clientmountd-in-service; SLURMD_NODENAME=compute-02 /etc/clientmountd/workload-manager/health.sh")
	has(s.t, s.do("scontrol show node compute-02"), "State=IDLE+DRAIN", "Reason=replace the memory [")
	s.do("scontrol update NodeName=compute-02 State=RESUME")
}

// The scripts for Flux wait for the storage of a job. The command flux, which this machine does not
// have, knows a job with storage, and fails for everything else.
func flux(s *slurm, install string) {
	n := s.nodes[0]
	n.m.Put("/usr/bin/flux", 0o755, []byte(`#!/bin/sh
case $* in
"job info f23BrE5gB jobspec") echo '{"attributes": {"system": {"dw": ["#DW jobdw type=xfs capacity=1TiB name=a"]}}}' ;;
"job id --to=dec f23BrE5gB") echo 75497472000 ;;
*) exit 1 ;;
esac
`))
	n.m.Do(install)
	f := n.m.Fixture
	script := func(name string) {
		n.m.Do("{ FLUX_JOB_ID=f23BrE5gB /etc/flux/system/" + name + ".d/60-clientmountd; echo $? >/tmp/" + name + "; } >/dev/null 2>&1 </dev/null &")
	}
	ended := func(name string) {
		if code := n.m.Await("the "+name+" has ended", "cat /tmp/"+name); code != "0" {
			s.t.Errorf("the exit code of the %s is %s", name, code)
		}
	}
	script("prolog")
	n.waits("mounted") // Flux runs it before the storage is mounted
	mount, _ := n.xfs("flux", 3)
	f.Apply(fixture.ClientMount("flux", f.Node, fixture.ClientMountSpec{Profile: f.Profile, OwnerUID: f.Owner, Workflow: "fluxjob-75497472000", Mounts: []fixture.MountSpec{mount}}))
	ended("prolog")
	n.m.Do("findmnt /mnt/nnf/flux")
	script("epilog")
	n.waits("unmounted")
	f.Unmount("flux")
	ended("epilog")
	f.Delete("flux")
	n.m.Do("rm /usr/bin/flux")
}
