package man

import (
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
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
		p.part(strings.TrimSpace(c.Name + " " + c.Arguments))
		p.text(sentence(c.Short))
		for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
			if paragraph != "" {
				p.text(paragraph)
			}
		}
		flags(p, c.Flags)
	}
	p.section("OPTIONS")
	p.text("These go with every command.")
	flags(p, g.Flags)
}

func environmentOf(p *page, g cli.Guide) {
	p.section("ENVIRONMENT")
	for _, e := range g.Environment {
		p.item("`"+e.Name+"`", e.Meaning+".")
	}
}

func exitsOf(p *page, g cli.Guide) {
	p.section("EXIT STATUS")
	for _, e := range g.Exits {
		p.item("`"+strconv.Itoa(e.Code)+"`", sentence(e.Meaning))
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
		text := sentence(f.Meaning)
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
	completionFiles(p, dmctl.Name, "Completion of commands, flags, files, and ids of the job's copies")
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

// deployPage is the page of nnf-deploy.
func deployPage() string {
	ref := deploy.Program.Guide()
	p := newPage(deploy.Name, "8", "System Administration")
	p.text(deploy.Name + ` - bring the daemons of rabbit storage to every compute node of a system`)
	p.section("SYNOPSIS")
	p.lines(usages(deploy.Name, ref)...)
	p.section("DESCRIPTION")
	p.text("An administrator runs it on one host that reaches the cluster as `kubectl`(1) does, and the computes by `ssh`(1). It gets the credentials of `clientmountd`(8) and `nnf-dm`(8) out of the cluster, tries them, brings both daemons to the nodes, and tells how they are there.")
	p.text("The answer goes to standard output, all else to standard error with the program's name in front.")
	p.text("Names of nodes come from the SystemConfiguration in the cluster or from a file. They have lower case letters, digits, hyphens and dots; anything else is refused before it gets near a command line.")
	commandsAndOptions(p, ref)
	p.section("FILES")
	p.item("`~/.kube/config`", "The access to the cluster, if neither `--kubeconfig` nor the environment names another one.")
	p.item("`"+product.TokenFile+"`, `"+product.CertFile+"`", "A daemon's token and the CA of the API server, mode 0600, below the folder of `--out`.")
	p.item("`/usr/share/doc/nnf-deploy/manifests`", "Accounts, Secrets and rights of the daemons, for a cluster that does not have them.")
	completionFiles(p, deploy.Name, "Completion")
	p.text("On a node:")
	first, second := product.Daemons[0], product.Daemons[1]
	p.item("`"+first.Settings()+"`, `"+second.Settings()+"`", "The address of the API server, where the credentials are, and the node's name. A file with a later name wins.")
	p.item("`"+first.DropIn()+"`, likewise for "+second.Name, "Arguments and environment of `--daemons`, if it has any.")
	p.item("`"+product.StateDirectory+"`", "The packages that run, to be put back when the next do not; the log of the last switch.")
	environmentOf(p, ref)
	p.section("SIGNALS")
	p.text("While nodes are gone to:")
	p.item("`SIGINT` (Ctrl-C), `SIGTERM`, `SIGHUP`", "Begin no further node, and wait for those that switch: each is either as before or new. A second one does not wait; the switch goes on, and nnf-deploy status tells what became of it.")
	p.text("Otherwise they end the program. A file is either the old one or the new one.")
	exitsOf(p, ref)
	p.section("EXAMPLES")
	for _, c := range ref.Commands {
		for _, e := range c.Examples {
			p.example(e.Comment, e.Lines)
		}
	}
	p.section("JOURNAL")
	p.text("The program writes nothing there. What the daemons on a node say is found with `journalctl -u clientmountd -u nnf-dm`.")
	seeAlso(p, "clientmountd(8)", "nnf-dm(8)", "clientmountd.toml(5)", "nnf-dm.toml(5)", "ssh(1)", "kubectl(1)")
	return p.String()
}

// completionFiles adds the files with the completion of a tool, which does what.
func completionFiles(p *page, program, what string) {
	p.item("`/usr/share/bash-completion/completions/"+program+"`", what+" for bash.")
	p.item("`/usr/share/zsh/site-functions/_"+program+"`", "The same for zsh.")
	p.item("`/usr/share/fish/vendor_completions.d/"+program+".fish`", "The same for fish.")
}
