package man

import (
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
)

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
	p.item("`service.token`, `service.cert`", "A daemon's token and the CA of the API server, mode 0600, below the folder of `--out`.")
	p.item("`/usr/share/doc/nnf-deploy/manifests`", "Accounts, Secrets and rights of the daemons, for a cluster that does not have them.")
	p.item("`/usr/share/bash-completion/completions/"+deploy.Name+"`", "Completion for bash.")
	p.text("On a node:")
	p.item("`/etc/clientmountd/config.d/50-nnf-deploy.toml`, `/etc/nnf-dm/config.d/50-nnf-deploy.toml`", "The address of the API server, where the credentials are, and the node's name. A file with a later name wins.")
	p.item("`/etc/systemd/system/clientmountd.service.d/50-nnf-deploy.conf`, likewise for nnf-dm", "Arguments and environment of `--daemons`, if it has any.")
	p.item("`/var/lib/nnf-deploy`", "The packages that run, to be put back when the next do not; the log of the last switch.")
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
