package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// nodesSettings are the settings of every command that works on nodes.
type nodesSettings struct {
	command                string
	system, sites, daemons string
	only                   []string
	results                string
	failed                 bool
	ssh                    remote.SSH
	parallel               int
}

func (n *nodesSettings) flags(f *pflag.FlagSet, command string) {
	n.command = command
	f.StringVar(&n.system, "system-config", "", "`FILE` with the SystemConfiguration that lists the nodes; otherwise that of the cluster")
	f.StringVar(&n.sites, "systems", "", "`FILE` (systems.yaml) that lists the SystemConfiguration of each context")
	f.StringVar(&n.daemons, "daemons", "", "`FILE` (daemons.yaml) with the daemons, their accounts, arguments and environment")
	f.StringArrayVar(&n.only, "only-daemon", nil, "only the daemon with this `NAME`; may be repeated")
	f.IntVar(&n.parallel, "parallel", 32, "at most `N` nodes at once")
	f.StringVar(&n.results, "results", "", "write the result of each node to `FILE` as soon as the node is finished, one JSON object per line")
	f.BoolVar(&n.failed, "failed", false, "only the nodes that failed, or were not started, in the run that wrote --results FILE")
	f.StringVar(&n.ssh.Program, "ssh", "", "`PROGRAM` to run instead of ssh, with the same arguments")
	f.StringArrayVar(&n.ssh.Options, "ssh-option", nil, "`OPTION` of ssh_config(5), or a flag for ssh itself that starts with - (-F/path); may be repeated")
	f.StringVar(&n.ssh.User, "user", "", "log in as the user with this `NAME`; otherwise as in ssh_config")
	f.BoolVar(&n.ssh.Sudo, "sudo", false, "become root with sudo, which must not ask for a password")
	f.DurationVar(&n.ssh.Connect, "connect-timeout", 10*time.Second, "a node that does not answer within `DURATION` has failed")
}

func (n *nodesSettings) check(names []string) error {
	switch {
	case n.failed && n.results == "":
		return usage.Errorf("--failed needs --results FILE, the file that the previous run has written")
	case n.failed && len(names) > 0:
		return usage.Errorf("--failed and NODE are mutually exclusive")
	case n.parallel < 1:
		return usage.Errorf("--parallel is 1 at least")
	case n.ssh.Connect < time.Second:
		return usage.Errorf("--connect-timeout is a second at least")
	case n.system != "" && n.sites != "":
		return usage.Errorf("--system-config and --systems both say which nodes there are: give one")
	case strings.HasPrefix(n.ssh.User, "-"):
		return usage.Errorf("--user %.80q is no user", n.ssh.User)
	}
	return nil
}

// shell runs scripts on the nodes.
func (n *nodesSettings) shell() remote.Shell { return &remote.Retry{Shell: &n.ssh} }

// job is what the commands for nodes have in common: which nodes, which daemons.
type job struct {
	v       *call
	n       *nodesSettings
	admin   *kube.Client // nil until it is needed
	site    *inventory.Site
	nodes   []inventory.Node
	daemons []inventory.Daemon
}

// newJob selects the nodes and the daemons.
func (v *call) newJob(ctx context.Context, n *nodesSettings, names []string) (*job, error) {
	j := &job{v: v, n: n}
	if err := n.check(names); err != nil {
		return nil, err
	}
	var err error
	if n.failed {
		if names, err = fleet.FailedIn(n.results, n.command); err != nil {
			return nil, fmt.Errorf("--failed: %w", err)
		}
	}
	var warnings []string
	if j.daemons, warnings, err = n.chosen(); err != nil {
		return nil, err
	}
	v.warn(warnings)
	system, err := j.system(ctx)
	if err != nil {
		return nil, err
	}
	all, err := inventory.Nodes(system)
	if err != nil {
		return nil, err
	}
	if n.failed {
		return j, j.repeat(all, names)
	}
	if j.nodes, err = inventory.Select(all, names); err != nil {
		return nil, usage.Errorf("%v", err)
	}
	return j, nil
}

// errNoneFailed reports that --failed finds no node.
var errNoneFailed = errors.New("no node to repeat")

// repeat selects the nodes of --failed. Nodes that are no longer computes of the system
// are reported and left out.
func (j *job) repeat(all []inventory.Node, names []string) error {
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	for _, n := range all {
		if wanted[n.Name] {
			j.nodes = append(j.nodes, n)
			delete(wanted, n.Name)
		}
	}
	if names = slices.DeleteFunc(names, func(n string) bool { return !wanted[n] }); len(names) > 0 {
		j.v.Say("note: no longer computes of this system, and left out: %s", text.Line(nodeset.Fold(names, 20)))
	}
	if len(j.nodes) == 0 {
		j.v.Say("no node failed in the run that wrote %s: nothing to repeat", text.Line(j.n.results))
		return errNoneFailed
	}
	return nil
}

// record creates the file of --results. The observer that it returns adds each
// result; finished closes the file and returns its first error.
func (j *job) record(names []string, o fleet.Observer) (observer fleet.Observer, finished func() error, err error) {
	if j.n.results == "" {
		return o, func() error { return nil }, nil
	}
	good := []fleet.State{fleet.OK, fleet.Unchanged, fleet.Differs}
	if j.n.command == "status" { // for which a node that differs has a problem
		good = []fleet.State{fleet.OK}
	}
	file, err := fleet.CreateResults(j.n.results, j.n.command, names, good...)
	if err != nil {
		return nil, nil, fmt.Errorf("--results: %w", err)
	}
	return file.Observe(o), func() error {
		if err := file.Close(); err != nil {
			return fmt.Errorf("--results: %s is not complete: %w", j.n.results, err)
		}
		return nil
	}, nil
}

// chosen returns the selected daemons.
func (n *nodesSettings) chosen() (all []inventory.Daemon, warnings []string, err error) {
	all = inventory.Defaults()
	if n.daemons != "" {
		if all, warnings, err = inventory.ReadDaemons(n.daemons); err != nil {
			return nil, nil, err
		}
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	for _, o := range n.only {
		if !slices.ContainsFunc(all, func(d inventory.Daemon) bool { return o != "" && (d.Name == o || d.Bin == o) }) {
			return nil, nil, usage.Errorf("--only-daemon is one of %s, not %.80q", strings.Join(names, ", "), o)
		}
	}
	return slices.DeleteFunc(all, func(d inventory.Daemon) bool {
		return len(n.only) > 0 && !slices.Contains(n.only, d.Name) && (d.Bin == "" || !slices.Contains(n.only, d.Bin))
	}), warnings, nil
}

// warn reports settings in files that have no effect.
func (v *call) warn(warnings []string) {
	for _, w := range warnings {
		v.Say("warning: %s", text.Line(w))
	}
}

func (j *job) cluster() (*kube.Client, error) {
	var err error
	if j.admin == nil {
		j.admin, err = j.v.cluster()
	}
	return j.admin, err
}

func (j *job) system(ctx context.Context) (inventory.System, error) {
	switch {
	case j.n.system != "":
		return j.fromFile(j.n.system)
	case j.n.sites != "":
		sites, warnings, err := inventory.ReadSites(j.n.sites)
		if err != nil {
			return inventory.System{}, err
		}
		j.v.warn(warnings)
		current := kube.CurrentContext(j.v.access())
		if current == "" {
			return inventory.System{}, hint.Add(errors.New("--systems selects a system by the context of the kubeconfig, and there is no context"), "give --context or --kubeconfig")
		}
		site, err := inventory.SiteOf(sites, current)
		if err != nil {
			return inventory.System{}, err
		}
		j.site = &site
		return j.fromFile(site.SystemConfiguration)
	}
	c, err := j.cluster()
	if err != nil {
		return inventory.System{}, hint.Add(err, "alternatively, name the nodes with --system-config FILE")
	}
	return inventory.FromCluster(ctx, c)
}

func (j *job) fromFile(path string) (inventory.System, error) {
	system, warnings, err := inventory.FromFile(path)
	j.v.warn(warnings)
	return system, err
}

// address returns where the computes reach the API server.
func (j *job) address(a address) (inventory.Address, error) {
	if j.site != nil {
		if a.host == "" {
			a.host = j.site.Host
		}
		if a.port == "" {
			a.port = j.site.Port
		}
	}
	server := ""
	if a.host == "" || a.port == "" {
		c, err := j.cluster()
		if err != nil {
			return inventory.Address{}, hint.Add(err, "alternatively, give --kubernetes-service-host and --kubernetes-service-port")
		}
		server = c.Address()
	}
	return a.of(server)
}

func (v *call) access() kube.Options {
	return kube.Options{
		Kubeconfig: v.kubeconfig, Context: v.context, Environ: v.Getenv,
		UserAgent: version.UserAgent(Name, "administrator"), QPS: -1,
	}
}

// cluster returns the administrator's access to the cluster. Nothing is sent yet.
func (v *call) cluster() (*kube.Client, error) {
	c, err := kube.Dial(v.access())
	if errors.Is(err, kube.ErrNotConfigured) {
		return nil, hint.Add(errors.New("no kubeconfig was found"), "give --kubeconfig FILE or set KUBECONFIG, as for kubectl")
	}
	return c, err
}

// address is the address of the API server for computes, from the flags.
type address struct{ host, port string }

func (a *address) flags(f *pflag.FlagSet) {
	f.StringVar(&a.host, "kubernetes-service-host", "", "`HOST` at which compute nodes reach the API server; otherwise that of the kubeconfig")
	f.StringVar(&a.port, "kubernetes-service-port", "", "`PORT` of the API server; otherwise that of the kubeconfig")
}

// of completes the address from the kubeconfig. An error in the flags is a usage error.
func (a *address) of(server string) (inventory.Address, error) {
	all, err := inventory.ForComputes(server, a.host, a.port)
	if err != nil && (a.host != "" || a.port != "") {
		return all, usage.Errorf("%v", err)
	}
	return all, err
}

// noteLoopback warns about an address that every compute would take for itself.
func (v *call) noteLoopback(at inventory.Address) {
	if at.Loopback() {
		v.Say("note: %s means each compute itself; give the address that computes use by --kubernetes-service-host and --kubernetes-service-port", at)
	}
}
