package man

import (
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

// tool is the page of nnf-dmctl.
func tool() string {
	ref := dmctl.Program.Guide()
	p := newPage(dmctl.Name, "1", "User Commands")
	p.text(dmctl.Name + ` - copy data of a job on the rabbit`)
	p.section("SYNOPSIS")
	p.lines(usages(dmctl.Name, ref)...)
	p.section("DESCRIPTION")
	p.text("Has the rabbit copy data of a job between its storage and a global file system, from a job script or by hand on a compute node. It talks to `nnf-dm`(8) on the same node and needs no rights of its own: the daemon knows the caller by the kernel's word, and copies with the user and group of the workflow.")
	p.text("The answer goes to standard output, all else to standard error with the program's name in front. On a terminal a copy that is waited for has a progress bar; elsewhere there is a line when its state changes, at each tenth, and after 30 seconds of silence.")
	p.text("A path has no blanks and no characters that a shell knows. `/mnt/dir` is the directory itself, `/mnt/dir/` is what lies in it.")
	commandsAndOptions(p, ref)
	p.section("FILES")
	p.item("`"+client.DefaultSocket+"`", "The socket of the daemon.")
	p.item("`/usr/share/bash-completion/completions/"+dmctl.Name+"`", "Completion for bash: commands, flags, files, and the ids of the job's copies.")
	environmentOf(p, ref)
	p.section("SIGNALS")
	p.text("While a copy is followed:")
	p.item("`SIGINT` (Ctrl-C)", "Detaches after 3 seconds: the copy goes on, and it says how to follow it again. Within them a second one cancels the copy and waits for its end; a third one detaches at once.")
	p.item("`SIGTERM`, `SIGHUP`", "Detach at once.")
	exitsOf(p, ref)
	p.text("Of several copies a failed one counts more than one that was deleted, and that more than a cancelled one.")
	p.section("EXAMPLES")
	p.example("In a job, which has its workflow in the environment:", "nnf-dmctl copy --wait \"$DW_JOB_scratch/out/\" /lus/global/alice/out/")
	p.example("Start now, wait later:", "id=$(nnf-dmctl copy \"$DW_JOB_scratch/step1/\" /lus/global/alice/step1/)\ncompute_step2\nnnf-dmctl wait \"$id\" || echo \"step1 was not saved: exit code $?\" >&2")
	p.example("Many files in one call:", "nnf-dmctl copy --wait \"$DW_JOB_scratch\"/ckpt.* /lus/global/alice/ckpt/\ngenerate_pairs | nnf-dmctl copy --wait --batch -")
	p.example("Safe to repeat: with the same key nothing is copied twice.", "nnf-dmctl copy --key step1 \"$DW_JOB_scratch/step1/\" /lus/global/alice/step1/")
	p.section("JOURNAL")
	p.text("The program writes nothing there. What the daemon was asked for, by whom, and what it refused, administrators find with `journalctl -u nnf-dm`.")
	seeAlso(p, "nnf-dm(8)", "nnf-dm.toml(5)", "bash(1)")
	return p.String()
}
