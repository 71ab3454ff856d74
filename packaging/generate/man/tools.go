package man

import (
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/packaging/generate/reference"
)

// The following functions are for the pages of programs with sub-commands.

func usages(program string, g cli.Guide) (lines []string) {
	for _, c := range g.Commands {
		lines = append(lines, strings.TrimSpace("`"+program+" "+c.Name+"` [<flags>] "+placeholders(c.Arguments)))
	}
	return lines
}

func commandsAndOptions(p *page, g cli.Guide) {
	p.section("COMMANDS")
	for _, c := range g.Commands {
		command(p, c)
	}
	p.section("OPTIONS")
	p.text("All commands accept these flags.")
	flags(p, g.Flags)
}

// command describes a sub-command and its flags.
func command(p *page, c cli.Entry) {
	p.part(strings.TrimSpace(c.Name + " " + c.Arguments))
	p.text(reference.Sentence(c.Short))
	for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
		if paragraph != "" {
			p.text(paragraph)
		}
	}
	flags(p, c.Flags)
}

// toolNames lists the sub-commands of a daemon.
func toolNames(g *cli.Guide) string {
	var list []string
	for _, c := range g.Commands {
		list = append(list, c.Name)
	}
	if last := len(list) - 1; last > 0 {
		return strings.Join(list[:last], ", ") + " and " + list[last]
	}
	return list[0]
}

func environmentOf(p *page, g cli.Guide) {
	p.section("ENVIRONMENT")
	for _, e := range g.Environment {
		p.item("`"+e.Name+"`", reference.Sentence(e.Meaning))
	}
}

func exitsOf(p *page, g cli.Guide) {
	p.section("EXIT STATUS")
	for _, e := range g.Exits {
		p.item("`"+strconv.Itoa(e.Code)+"`", reference.Sentence(e.Meaning))
	}
}

// examplesOf adds the examples of all sub-commands.
func examplesOf(p *page, g cli.Guide) {
	for _, c := range g.Commands {
		for _, e := range c.Examples {
			p.example(e.Comment, e.Lines)
		}
	}
}

// placeholders marks the placeholders of a synopsis.
func placeholders(arguments string) string {
	var out []string
	for word := range strings.FieldsSeq(arguments) {
		switch {
		case word == strings.ToLower(word):
			word = "`" + word + "`"
		case strings.HasPrefix(word, "["):
			word = "[<" + strings.Trim(word, "[]") + ">]"
		default:
			name, dots := strings.CutSuffix(word, "...")
			if word = "<" + name + ">"; dots {
				word += "..."
			}
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

func flags(p *page, list []cli.Flag) {
	for _, f := range list {
		term := "`--" + f.Name + "`"
		if f.Letter != "" {
			term = "`-" + f.Letter + "`, " + term
		}
		if f.Value != "" {
			term += " <" + f.Value + ">"
		}
		text := reference.Sentence(f.Meaning)
		if f.Default != "" {
			text += " Default: `" + f.Default + "`."
		}
		p.item(term, text)
	}
}

// tool is the page of nnf-dmctl.
func tool() string {
	ref := dmctl.Program.Guide()
	p := newPage(dmctl.Name, "1", "User Commands")
	p.text(dmctl.Name + ` - copy job data from rabbit storage to a global file system`)
	p.section("SYNOPSIS")
	p.lines(usages(dmctl.Name, ref)...)
	p.section("DESCRIPTION")
	p.text("nnf-dmctl requests copies from the rabbit storage of a job to a global file system. Use it in job scripts or interactively on a compute node. It connects to `nnf-dm`(8) on the same node and needs no privileges: the daemon identifies the caller by kernel peer credentials (SO_PEERCRED), and the rabbit copies with the user and group of the workflow.")
	p.text("Results go to standard output. Messages go to standard error, prefixed with the program name. While nnf-dmctl waits for a copy, it shows a progress bar on a terminal. Elsewhere it prints a line when the state changes, at every 10 percent of progress, and after 30 seconds without output.")
	p.text("Paths must not contain blanks or characters that are special to a shell. `/mnt/dir` means the directory itself, `/mnt/dir/` its contents.")
	commandsAndOptions(p, ref)
	p.section("FILES")
	p.item("`"+client.DefaultSocket+"`", "The socket of the daemon.")
	completionFiles(p, dmctl.Name, "Completion of commands, flags, files, and ids of the job's copies")
	environmentOf(p, ref)
	p.section("SIGNALS")
	p.text("While nnf-dmctl follows a copy:")
	p.item("`SIGINT` (Ctrl-C)", "Detach after 3 seconds: the copy continues, and nnf-dmctl prints the command that follows it again. A second Ctrl-C within this time cancels the copy and waits for its end. A third one detaches immediately.")
	p.item("`SIGTERM`, `SIGHUP`", "Detach immediately.")
	exitsOf(p, ref)
	p.text("If several copies do not succeed, the exit code is the lowest that applies: that of a failed copy, then of a deleted one, then of a cancelled one.")
	p.section("EXAMPLES")
	p.example("In a job, whose environment names the workflow:", "nnf-dmctl copy --wait \"$DW_JOB_scratch/out/\" /lus/global/alice/out/")
	p.example("Start a copy now and wait for it later:", "id=$(nnf-dmctl copy \"$DW_JOB_scratch/step1/\" /lus/global/alice/step1/)\ncompute_step2\nnnf-dmctl wait \"$id\" || echo \"step1 was not saved: exit code $?\" >&2")
	p.example("Copy many files with one call:", "nnf-dmctl copy --wait \"$DW_JOB_scratch\"/ckpt.* /lus/global/alice/ckpt/\ngenerate_pairs | nnf-dmctl copy --wait --batch -")
	p.example("Make a copy safe to repeat. A request with the same key does not start a second copy:", "nnf-dmctl copy --key step1 \"$DW_JOB_scratch/step1/\" /lus/global/alice/step1/")
	examplesOf(p, ref)
	p.section("JOURNAL")
	p.text("nnf-dmctl does not write to the journal. Administrators find the requests that the daemon received or refused, with user and process, with `journalctl -u nnf-dm`.")
	seeAlso(p, "nnf-dm(8)", "nnf-dm.toml(5)", "bash(1)")
	return p.String()
}

// deployPage is the page of nnf-deploy.
func deployPage() string {
	ref := deploy.Program.Guide()
	p := newPage(deploy.Name, "8", "System Administration")
	p.text(deploy.Name + ` - install the daemons for rabbit storage on all compute nodes`)
	p.section("SYNOPSIS")
	p.lines(usages(deploy.Name, ref)...)
	p.section("DESCRIPTION")
	p.text("Run nnf-deploy on one host that can reach the cluster like `kubectl`(1) and the compute nodes with `ssh`(1). It fetches the credentials of `clientmountd`(8) and `nnf-dm`(8) from the cluster, checks them, installs both daemons on the nodes, and reports their state.")
	p.text("Results go to standard output. Messages go to standard error, prefixed with the program name.")
	p.text("Node names come from the SystemConfiguration in the cluster or from a file. They consist of lower-case letters, digits, hyphens and dots. nnf-deploy refuses any other name before it uses it in a command.")
	commandsAndOptions(p, ref)
	p.section("FILES")
	p.item("`~/.kube/config`", "The kubeconfig that is used if neither `--kubeconfig` nor the environment names another one.")
	p.item("`"+product.TokenFile+"`, `"+product.CertFile+"`", "The token of a daemon and the CA of the API server, mode 0600, in or below the directory given by `--out`.")
	p.item("`/usr/share/doc/nnf-deploy/manifests`", "Service accounts, Secrets and roles of the daemons, for a cluster that does not have them.")
	completionFiles(p, deploy.Name, "Completion")
	p.text("On a node:")
	first, second := product.Daemons[0], product.Daemons[1]
	p.item("`"+first.Settings()+"`, `"+second.Settings()+"`", "The address of the API server, the paths of the credentials, and the node name. Files that sort after this one override it.")
	p.item("`"+first.DropIn()+"`, likewise for "+second.Name, "Arguments and environment variables from `--daemons`, if there are any.")
	p.item("`"+second.TimerRecord()+"`", "The record that nnf-deploy has enabled `"+second.Timer()+"`, on nodes where "+second.Name+" has an account of its own.")
	p.item("`"+product.StateDirectory+"`", "The packages that are installed, which nnf-deploy restores if the next ones do not work, and the log of the last installation.")
	environmentOf(p, ref)
	p.section("SIGNALS")
	p.text("While nnf-deploy works on nodes:")
	p.item("`SIGINT` (Ctrl-C), `SIGTERM`, `SIGHUP`", "Start no further node, and wait for the nodes that are being changed: each ends up in either the old or the new state. After a second signal nnf-deploy does not wait. The change continues on the node; `nnf-deploy status` shows the result.")
	p.text("At any other time a signal ends the program. Every file that it writes is then complete: either the old or the new version.")
	exitsOf(p, ref)
	p.section("EXAMPLES")
	examplesOf(p, ref)
	p.section("JOURNAL")
	p.text("nnf-deploy does not write to the journal. To read the records of the daemons, run `journalctl -u clientmountd -u nnf-dm` on a node.")
	seeAlso(p, "clientmountd(8)", "nnf-dm(8)", "clientmountd.toml(5)", "nnf-dm.toml(5)", "ssh(1)", "kubectl(1)")
	return p.String()
}

// completionFiles adds the completion files of a tool. what describes the completion.
func completionFiles(p *page, program, what string) {
	p.item("`/usr/share/bash-completion/completions/"+program+"`", what+" for bash.")
	p.item("`/usr/share/zsh/site-functions/_"+program+"`", "The same for zsh.")
	p.item("`/usr/share/fish/vendor_completions.d/"+program+".fish`", "The same for fish.")
}
