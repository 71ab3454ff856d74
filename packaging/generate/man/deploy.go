package man

import (
	"github.com/compute-daemons/compute-daemons/internal/deploy/commands"
)

// deploy is the page of nnf-deploy.
func deploy() string {
	ref := commands.Reference()
	p := newPage(commands.Name, "8", "System Administration")
	p.text(commands.Name + ` - bring the daemons of rabbit storage to every compute node of a system`)
	p.section("SYNOPSIS")
	p.lines(usages(commands.Name, ref)...)
	p.section("DESCRIPTION")
	p.text("An administrator runs it on one host that reaches the cluster as `kubectl`(1) does, and the computes by `ssh`(1). It gets the credentials of `clientmountd`(8) and `nnf-dm`(8) out of the cluster, tries them, and brings both daemons to the nodes.")
	p.text("The answer goes to standard output, all else to standard error with the program's name in front.")
	p.text("Names of nodes come from the SystemConfiguration in the cluster or from a file. They have lower case letters, digits, hyphens and dots; anything else is refused before it gets near a command line.")
	commandsAndOptions(p, ref)
	p.section("FILES")
	p.item("`~/.kube/config`", "The access to the cluster, if neither `--kubeconfig` nor the environment names another one.")
	p.item("`service.token`, `service.cert`", "A daemon's token and the CA of the API server, mode 0600, below the folder of `--out`.")
	p.item("`/usr/share/doc/nnf-deploy/manifests`", "Accounts, Secrets and rights of the daemons, for a cluster that does not have them.")
	p.item("`/usr/share/bash-completion/completions/"+commands.Name+"`", "Completion for bash.")
	environmentOf(p, ref)
	p.section("SIGNALS")
	p.item("`SIGINT` (Ctrl-C), `SIGTERM`, `SIGHUP`", "End what waits. A file is either the old one or the new one.")
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
