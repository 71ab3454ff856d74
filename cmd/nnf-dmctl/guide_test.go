package main

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

// TestCopyGuide runs the commands of docs/copy.md in one shell, as a job would, with a fake
// daemon.
func TestCopyGuide(t *testing.T) {
	blocks := manual.Commands(t, "../..", "docs/copy.md", "cmd/nnf-dmctl TestCopyGuide")
	job := "compute_step2() { :; }\nsrun() { :; }\n" +
		"generate_pairs() { echo \"$DW_JOB_scratch/a /lus/global/alice/a\"; echo \"$DW_JOB_scratch/b /lus/global/alice/b\"; }\n" +
		strings.Join(blocks, "")
	steps := "daemon new\nmkdir scratch\ncp job.sh scratch/ckpt.1\ncp job.sh scratch/ckpt.2\nenv DW_JOB_scratch=$WORK/scratch\n" +
		"exec sh -eu job.sh\n! stderr error:\nstdout 'nnf-dm-node-1: success'\n-- job.sh --\n" + job
	script.RunText(t, scripts(), steps)
}
