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

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

const (
	jobUser = 1000
	// rate slows the copy down so that its progress is visible; a real copy has gigabytes.
	rate     = "* rate=3M"
	slowRate = "*/again/* rate=256k"

	// cancelled is the exit code of nnf-dmctl for a copy that was cancelled.
	cancelled = 4
)

// job is the second part: the job of a user copies from its storage to a global
// file system.
type job struct {
	*demo
	*fixture.Job
	global string // where the global file system is on this machine
	mover  *lab.Process
	rabbit *lab.Rabbit
}

func (d *demo) copies() {
	user := jobUser
	if d.Features.UserNamespace {
		user = 0 // the only user in the namespace
	}
	d.out.title("\nnnf-dm: from the command in a job to its files in the global file system")
	if d.Features.UserNamespace {
		d.out.note("Without root, the job runs as root of the user namespace, and nnf-dm is configured to allow that.")
	}
	d.out.note("Fake: the gfs2 (an xfs or tmpfs, mounted by the test build of clientmountd), the rabbit and its dcp.")
	d.Site()
	j := &job{demo: d, Job: d.Fixture.Job("job8", user), global: filepath.Join(d.Files, "global")}
	steps(d.ctx, j.storage, j.daemons, j.copy, j.cancel, j.end)
}

// storage mounts the file system of the job with clientmountd.
func (j *job) storage() {
	fsTypes := "gfs2=xfs"
	if j.Features.UserNamespace {
		fsTypes = "gfs2=tmpfs"
	}
	j.startDaemon(fsTypes)
	j.Mounted(j.ClientMount(j.Rabbit, 0))
	began := time.Now()
	o := j.ClientMount(j.Node, 0)
	j.object = o.Name()
	j.Apply(o)
	j.Await(j.object, "mounted")
	j.out.good("mounted", "the job's gfs2 at "+j.Job.Mount(0), time.Since(began))
	t, err := plant(filepath.Join(j.Job.Mount(0), "results"), j.User)
	j.must(err)
	j.out.block("the job wrote " + t.String() + " to results/")
}

// daemons starts nnf-dm and the rabbit, which sees the same storage.
func (j *job) daemons() {
	alice := filepath.Join(j.global, "alice")
	j.must(errors.Join(os.MkdirAll(alice, 0o755), os.Chown(alice, j.User, j.User)))
	if j.Features.UserNamespace { // groups cannot be dropped there
		change := lab.Object{"data": map[string]any{"setprivCommand": "env"}}
		_, err := j.Cluster.Patch(j.ctx, "NnfDataMovementProfile", "nnf-system", "default", change)
		j.must(err)
	}
	j.rabbit = j.StartRabbit(map[string]string{j.OnRabbit(0): j.Job.Mount(0), fixture.Global: j.global})
	j.must(j.rabbit.Faults(slowRate, rate))
	j.mover = j.Launch(lab.Spec{Program: "nnf-dm", Args: []string{j.Settings("[access]", fmt.Sprintf("allow_root_copies = %t", j.User == 0))}})
	took := j.Ready(j.mover)
	j.ready("nnf-dm", "READY on "+j.Socket, j.mover, took)
}

// copy copies the results of the job and compares the copy with them. The rabbit
// copies from a gfs2 into a directory with its own name.
func (j *job) copy() {
	began := time.Now()
	out := j.dmctl(0, true, "copy", "--wait", j.Job.Mount(0)+"/results/", fixture.Global+"/alice/results/")
	took := time.Since(began)
	id, _, _ := strings.Cut(out, ":")
	t, err := compare(filepath.Join(j.Job.Mount(0), "results"), filepath.Join(j.global, "alice", "results", filepath.Base(j.OnRabbit(0))), j.User)
	if err != nil {
		j.tb.Fatal("the copy differs: ", err)
	}
	j.out.good("copied", t.String()+": names, contents, modes and owners are equal", took)
	j.dmctl(0, true, "delete", id)
}

// cancel starts a slow copy and cancels it.
func (j *job) cancel() {
	began := time.Now()
	id := j.dmctl(0, true, "copy", j.Job.Mount(0)+"/results/", fixture.Global+"/alice/again/")
	moves := func(o lab.Object) bool {
		percent, _ := o.At("status", "commandStatus", "progress").(float64)
		return percent > 0
	}
	_, err := j.Cluster.WaitFor(j.ctx, "NnfDataMovement", j.Rabbit, id, moves)
	j.must(err)
	j.dmctl(0, true, "cancel", id)
	j.dmctl(cancelled, true, "wait", id)
	// Killed processes disappear a moment later.
	wait.Within(j.tb, 10*time.Second, "the end of the processes that copy", func() bool {
		left, err := j.Leftovers()
		j.must(err)
		return !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "process ") })
	})
	j.out.bad("cancelled", fmt.Sprintf("exit code %d; no process of the copy is left", cancelled), time.Since(began))
	j.dmctl(0, false, "delete", id)
	j.must(j.Cluster.WaitGone(j.ctx, "NnfDataMovement", j.Rabbit, id))
}

// dmctl runs nnf-dmctl as the user and in the environment of the job. It returns the
// standard output, and fails unless the exit code is want.
func (j *job) dmctl(want int, show bool, args ...string) string {
	program, err := lab.Binary("nnf-dmctl")
	j.must(err)
	cmd := exec.CommandContext(j.ctx, program, args...)
	cmd.Env = []string{
		"DW_WORKFLOW_NAME=" + j.Name, "DW_WORKFLOW_NAMESPACE=default", "NNF_DM_SOCKET=" + j.Socket,
		"TERM=" + os.Getenv("TERM"), "NO_COLOR=" + os.Getenv("NO_COLOR"),
	}
	// In its own process group it does not receive the terminal's Ctrl-C.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if j.User != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(j.User), Gid: uint32(j.User)}
	}
	var stdout, stderr bytes.Buffer
	screen := j.out.inset()
	cmd.Stdout, cmd.Stderr = &stdout, io.Writer(&stderr)
	if show {
		j.out.command("nnf-dmctl " + strings.Join(args, " "))
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, screen), io.MultiWriter(&stderr, screen)
		if term.IsTerminal(int(j.out.file.Fd())) {
			cmd.Stderr = j.out.file // for the progress bar
		}
	}
	err = j.Run(cmd)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		j.tb.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		j.tb.Fatalf("nnf-dmctl %s exited with code %d, want %d: %s%s", args[0], code, want, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String())
}

// end unmounts the storage of the job and stops the daemons and the rabbit.
func (j *job) end() {
	began := time.Now()
	j.Stop(j.mover)
	j.must(j.rabbit.Stop())
	j.Unmount(j.object)
	j.Delete(j.object)
	j.Stop(j.daemon)
	j.out.good("cleaned up", "storage unmounted, ClientMount deleted, both daemons exited with code 0", time.Since(began))
}
