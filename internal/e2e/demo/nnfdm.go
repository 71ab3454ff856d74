package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

const (
	jobUser = 1000
	// rate lets the screen show how a copy progresses; a real one has gigabytes to copy.
	rate     = "* rate=3M"
	slowRate = "*/again/* rate=256k"

	// cancelled is the exit code of nnf-dmctl for a copy that was cancelled.
	cancelled = 4
)

// job is the second half: a user's job copies from its storage to a global file
// system.
type job struct {
	*demo
	*world.Job
	global string // where the global file system is on this machine
	mover  *lab.Process
	rabbit *lab.Rabbit
}

func (d *demo) copies() {
	user := jobUser
	if d.Features.UserNamespace {
		user = 0 // the only one that there is
	}
	d.out.title("\nnnf-dm, from a job's command to its files in the global file system")
	if d.Features.UserNamespace {
		d.out.note("Without root the job's user is the namespace's root, which nnf-dm is told to allow.")
	}
	d.out.note("Stand-ins: an xfs or tmpfs for gfs2, which the test build of clientmountd has been told, and the rabbit with its dcp.")
	d.Site()
	j := &job{demo: d, Job: d.World.Job("job8", user), global: filepath.Join(d.Files, "global")}
	steps(d.ctx, j.storage, j.daemons, j.copy, j.cancel, j.end)
}

// storage gives the job its file system, by clientmountd as before.
func (j *job) storage() {
	standins := "gfs2=xfs"
	if j.Features.UserNamespace {
		standins = "gfs2=tmpfs"
	}
	j.startDaemon(standins)
	j.Mounted(j.ClientMount(j.Rabbit, 0))
	began := time.Now()
	o := j.ClientMount(j.Node, 0)
	j.object = o.Name()
	j.Apply(o)
	j.Await(j.object, "mounted")
	j.out.good("mounted", "by clientmountd: the job's gfs2 at "+j.Job.Mount(0), time.Since(began))
	t, err := plant(filepath.Join(j.Job.Mount(0), "results"), j.User)
	j.must(err)
	j.out.block("the job has written " + t.String() + " to results/")
}

// daemons starts nnf-dm and the rabbit, which sees the same storage.
func (j *job) daemons() {
	alice := filepath.Join(j.global, "alice")
	j.must(errors.Join(os.MkdirAll(alice, 0o755), os.Chown(alice, j.User, j.User)))
	if j.Features.UserNamespace { // no groups can be dropped there
		change := lab.Object{"data": map[string]any{"setprivCommand": "env"}}
		_, err := j.Cluster.Patch(j.ctx, "NnfDataMovementProfile", "nnf-system", "default", change)
		j.must(err)
	}
	j.rabbit = j.StartRabbit(map[string]string{j.OnRabbit(0): j.Job.Mount(0), world.Global: j.global})
	j.must(j.rabbit.Faults(slowRate, rate))
	j.mover = j.Launch(lab.Spec{Program: "nnf-dm", Args: []string{j.Settings("[access]", fmt.Sprintf("allow_root_copies = %t", j.User == 0))}})
	took := j.Ready(j.mover)
	j.ready("nnf-dm", "READY on "+j.Socket, j.mover, took)
}

// copy copies the job's results and looks whether all has arrived. What the
// rabbit copies from a gfs2 comes below a directory of this rabbit's.
func (j *job) copy() {
	began := time.Now()
	said := j.dmctl(0, true, "copy", "--wait", j.Job.Mount(0)+"/results/", world.Global+"/alice/results/")
	took := time.Since(began)
	id, _, _ := strings.Cut(said, ":")
	t, err := compare(filepath.Join(j.Job.Mount(0), "results"), filepath.Join(j.global, "alice", "results", filepath.Base(j.OnRabbit(0))), j.User)
	if err != nil {
		j.tb.Fatal("the copy is not the same: ", err)
	}
	j.out.good("copied", "compared: "+t.String()+", names, contents, modes and owners are equal", took)
	j.dmctl(0, true, "delete", id)
}

// cancel starts a copy that would take long, and cancels it.
func (j *job) cancel() {
	began := time.Now()
	id := j.dmctl(0, true, "copy", j.Job.Mount(0)+"/results/", world.Global+"/alice/again/")
	moves := func(o lab.Object) bool {
		percent, _ := o.At("status", "commandStatus", "progress").(float64)
		return percent > 0
	}
	_, err := j.Cluster.WaitFor(j.ctx, "NnfDataMovement", j.Rabbit, id, moves)
	j.must(err)
	j.dmctl(0, true, "cancel", id)
	j.dmctl(cancelled, true, "wait", id)
	// The kernel takes a moment to take the killed processes away.
	wait.Within(j.tb, 10*time.Second, "the end of the processes that copy", func() bool {
		left, err := j.Leftovers()
		j.must(err)
		return !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "process ") })
	})
	j.out.bad("cancelled", fmt.Sprintf("exit code %d; no process copies any more", cancelled), time.Since(began))
	j.dmctl(0, false, "delete", id)
	j.must(j.Cluster.WaitGone(j.ctx, "NnfDataMovement", j.Rabbit, id))
}

// dmctl runs nnf-dmctl as the job's user and in the job's environment. It
// returns its answer, and fails unless its exit code is the wanted one.
func (j *job) dmctl(want int, show bool, args ...string) string {
	program, err := lab.Binary("nnf-dmctl")
	j.must(err)
	cmd := exec.CommandContext(j.ctx, program, args...)
	cmd.Env = []string{
		"DW_WORKFLOW_NAME=" + j.Name, "DW_WORKFLOW_NAMESPACE=default", "NNF_DM_SOCKET=" + j.Socket,
		"TERM=" + os.Getenv("TERM"), "NO_COLOR=" + os.Getenv("NO_COLOR"),
	}
	// In a group of its own it does not get the terminal's Ctrl-C, which is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if j.User != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(j.User), Gid: uint32(j.User)}
	}
	var answer, said bytes.Buffer
	screen := j.out.inset()
	cmd.Stdout, cmd.Stderr = &answer, io.Writer(&said)
	if show {
		j.out.command("nnf-dmctl " + strings.Join(args, " "))
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&answer, screen), io.MultiWriter(&said, screen)
		if term.IsTerminal(int(j.out.file.Fd())) {
			cmd.Stderr = j.out.file // for the progress bar
		}
	}
	err = j.Run(cmd)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		j.tb.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		j.tb.Fatalf("nnf-dmctl %s ended with code %d instead of %d: %s%s", args[0], code, want, &answer, &said)
	}
	return strings.TrimSpace(answer.String())
}

// end takes the job's storage away and stops what was started for it.
func (j *job) end() {
	began := time.Now()
	j.Stop(j.mover)
	j.must(j.rabbit.Stop())
	j.Unmount(j.object)
	j.Delete(j.object)
	j.Stop(j.daemon)
	j.out.good("ended", "storage unmounted, ClientMount gone, nnf-dm and clientmountd exited with code 0", time.Since(began))
}
