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
)

// cancelled is the exit code of nnf-dmctl for a copy that was cancelled.
const cancelled = 4

// copy copies the job's results and looks whether all has arrived. What the
// rabbit copies from a gfs2 comes below a directory of this rabbit's.
func (j *job) copy() error {
	began := time.Now()
	said, err := j.dmctl(0, true, "copy", "--wait", j.Mount+"/results/", j.Global+"/alice/results/")
	if err != nil {
		return err
	}
	took := time.Since(began)
	id, _, _ := strings.Cut(said, ":")
	t, err := compare(filepath.Join(j.Mount, "results"), filepath.Join(j.global, "alice", "results", filepath.Base(j.OnRabbit())), j.user)
	if err != nil {
		return fmt.Errorf("the copy is not the same: %w", err)
	}
	j.out.good("copied", "compared: "+t.String()+", names, contents, modes and owners are equal", took)
	_, err = j.dmctl(0, true, "delete", id)
	return err
}

// cancel begins a copy that would take long, and thinks better of it.
func (j *job) cancel() error {
	began := time.Now()
	id, err := j.dmctl(0, true, "copy", j.Mount+"/results/", j.Global+"/alice/again/")
	if err != nil {
		return err
	}
	moves := func(o lab.Object) bool {
		percent, _ := o.At("status", "commandStatus", "progress").(float64)
		return percent > 0
	}
	if _, err := j.cluster.WaitFor(j.ctx, "NnfDataMovement", lab.CopyRabbit, id, moves); err != nil {
		return err
	}
	if _, err := j.dmctl(0, true, "cancel", id); err != nil {
		return err
	}
	if _, err := j.dmctl(cancelled, true, "wait", id); err != nil {
		return err
	}
	if err := j.noCopying(); err != nil {
		return err
	}
	j.out.bad("cancelled", fmt.Sprintf("exit code %d; no process copies any more", cancelled), time.Since(began))
	if _, err := j.dmctl(0, false, "delete", id); err != nil {
		return err
	}
	return j.cluster.WaitGone(j.ctx, "NnfDataMovement", lab.CopyRabbit, id)
}

// noCopying waits until the kernel has taken the killed processes away.
func (j *job) noCopying() error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left, err := j.Leftovers()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(left, func(l string) bool { return strings.HasPrefix(l, "process ") })
		if i < 0 {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("still there: " + left[i])
		}
	}
}

// dmctl runs nnf-dmctl as the job's user and in the job's environment. It
// returns what it answers, and fails unless its exit code is the wanted one.
func (j *job) dmctl(want int, show bool, args ...string) (string, error) {
	program := os.Getenv("NNF_DMCTL")
	if program == "" {
		return "", errors.New("there is no nnf-dmctl beside this program: make build-daemon")
	}
	cmd := exec.CommandContext(j.ctx, program, args...)
	cmd.Env = []string{
		"DW_WORKFLOW_NAME=" + j.Workflow, "DW_WORKFLOW_NAMESPACE=default", "NNF_DM_SOCKET=" + j.socket,
		"TERM=" + os.Getenv("TERM"), "NO_COLOR=" + os.Getenv("NO_COLOR"),
	}
	// In a group of its own it does not get the terminal's Ctrl-C, which is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if j.user != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(j.user), Gid: uint32(j.user)}
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
	err := j.Run(cmd)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return "", err
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		return "", fmt.Errorf("nnf-dmctl %s ended with code %d instead of %d: %s%s%s", args[0], code, want, &answer, &said, tail(j.mover))
	}
	return strings.TrimSpace(answer.String()), nil
}
