package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// nodesSettings has the settings of the commands that work on nodes.
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
	n.systemFlags(f)
	f.StringVar(&n.daemons, "daemons", "", "read `FILE` (daemons.yaml), which lists the daemons, their accounts, arguments and environment")
	f.StringArrayVar(&n.only, "only-daemon", nil, "work only on the daemon `NAME`; may be repeated")
	n.sshFlags(f)
}

// reportFlags are the flags of commands that only report about the mounts of nodes.
func (n *nodesSettings) reportFlags(f *pflag.FlagSet, command string) {
	n.command = command
	n.systemFlags(f)
	n.sshFlags(f)
}

func (n *nodesSettings) systemFlags(f *pflag.FlagSet) {
	f.StringVar(&n.system, "system-config", "", "read the SystemConfiguration, which lists the nodes, from `FILE`; by default, from the cluster")
	f.StringVar(&n.sites, "systems", "", "read `FILE` (systems.yaml), which lists the SystemConfiguration of each context")
}

func (n *nodesSettings) sshFlags(f *pflag.FlagSet) {
	f.IntVar(&n.parallel, "parallel", 32, "work on at most `N` nodes at the same time")
	f.StringVar(&n.results, "results", "", "write the result of each node to `FILE` as soon as the node is finished, one JSON object per line")
	f.BoolVar(&n.failed, "failed", false, "work only on the nodes that failed, or were not started, in the run that wrote --results FILE")
	f.StringVar(&n.ssh.Program, "ssh", "", "run `PROGRAM` instead of ssh, with the same arguments")
	f.StringArrayVar(&n.ssh.Options, "ssh-option", nil, "pass `OPTION` of ssh_config(5), or a flag of ssh such as -F/path, to ssh; may be repeated")
	f.StringVar(&n.ssh.User, "user", "", "log in as the user `NAME`; by default, as in ssh_config")
	f.BoolVar(&n.ssh.Sudo, "sudo", false, "become root with sudo, which must not ask for a password")
	f.DurationVar(&n.ssh.Connect, "connect-timeout", 10*time.Second, "treat a node that does not answer within `DURATION` as failed")
}

func (n *nodesSettings) check(names []string) error {
	switch {
	case n.failed && n.results == "":
		return usage.Errorf("--failed requires --results FILE, which the previous run has written")
	case n.failed && len(names) > 0:
		return usage.Errorf("--failed and NODE are mutually exclusive")
	case n.ssh.Connect < time.Second:
		return usage.Errorf("--connect-timeout must be at least 1s")
	case strings.HasPrefix(n.ssh.User, "-"):
		return usage.Errorf("--user %.80q is not a valid user name", n.ssh.User)
	}
	return n.checkSystem()
}

// checkSystem validates the flags of systemFlags and --parallel.
func (n *nodesSettings) checkSystem() error {
	switch {
	case n.parallel < 1:
		return usage.Errorf("--parallel must be at least 1")
	case n.system != "" && n.sites != "":
		return usage.Errorf("--system-config and --systems are mutually exclusive")
	}
	return nil
}

// shell returns the Shell that runs scripts on the nodes. If logins may take longer than by
// default, a busy sshd closes connections for longer, too.
func (n *nodesSettings) shell() remote.Shell {
	return &remote.Retry{Shell: &n.ssh, Limit: 9 * n.ssh.Connect}
}

// job has the nodes and daemons on which a command works.
type job struct {
	v       *call
	n       *nodesSettings
	admin   *kube.Client // nil until it is needed
	site    *inventory.Site
	nodes   []inventory.Node
	daemons []inventory.Daemon
}

// newJob checks the settings and selects the nodes and daemons.
func (v *call) newJob(ctx context.Context, n *nodesSettings, names []string) (*job, error) {
	j := &job{v: v, n: n}
	if err := n.check(names); err != nil {
		return nil, err
	}
	if most, limit := remote.MaxNodes(); n.parallel > most {
		v.Say("note: working on %d nodes at the same time: --parallel %d needs %d open files, but the limit is %d; raise the hard limit with ulimit -Hn", most, n.parallel, remote.OpenFiles(n.parallel), limit)
		n.parallel = most
	}
	var err error
	if n.failed {
		if names, err = fleet.FailedIn(n.results, n.command); err != nil {
			return nil, fmt.Errorf("--failed: %w", err)
		}
	}
	var warnings []string
	if j.daemons, warnings, err = n.selected(); err != nil {
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

// errNoneFailed is the error if --failed selects no node.
var errNoneFailed = errors.New("no node to repeat")

// repeat selects the nodes for --failed. It reports and leaves out nodes that are no longer
// compute nodes of the system.
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
		j.v.Say("note: left out, because they are no longer compute nodes of this system: %s", text.Line(nodeset.Fold(names, 20)))
	}
	if len(j.nodes) == 0 {
		j.v.Say("no node failed in the run that wrote %s: nothing to repeat", text.Line(j.n.results))
		return errNoneFailed
	}
	return nil
}

// record creates the file of --results, if it is set. The returned observer adds each result
// to it; finished closes the file and returns the first error.
func (j *job) record(names []string, o fleet.Observer) (observer fleet.Observer, finished func() error, err error) {
	if j.n.results == "" {
		return o, func() error { return nil }, nil
	}
	good := []fleet.State{fleet.OK, fleet.Unchanged, fleet.Differs}
	if slices.Contains([]string{"status", "health", "doctor"}, j.n.command) { // they return Differs for a node with a problem
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

// selected returns the daemons to work on, and warnings about the file of --daemons.
func (n *nodesSettings) selected() (all []inventory.Daemon, warnings []string, err error) {
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
			return nil, nil, usage.Errorf("--only-daemon must be one of %s, not %.80q", strings.Join(names, ", "), o)
		}
	}
	return slices.DeleteFunc(all, func(d inventory.Daemon) bool {
		return len(n.only) > 0 && !slices.Contains(n.only, d.Name) && (d.Bin == "" || !slices.Contains(n.only, d.Bin))
	}), warnings, nil
}

// warn prints warnings about input files.
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
			return inventory.System{}, hint.Add(errors.New("--systems selects a system by the context of the kubeconfig, but no context is set"), "use --context or --kubeconfig")
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
		return inventory.System{}, hint.Add(err, "alternatively, list the nodes with --system-config FILE")
	}
	return inventory.FromCluster(ctx, c)
}

func (j *job) fromFile(path string) (inventory.System, error) {
	system, warnings, err := inventory.FromFile(path)
	j.v.warn(warnings)
	return system, err
}

// address returns the address at which compute nodes reach the API server.
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
	o := kube.Options{
		Kubeconfig: v.kubeconfig, Context: v.context, Environ: v.Getenv,
		UserAgent: version.UserAgent(Name, "administrator"), QPS: -1,
	}
	if v.transport != nil {
		o.WrapTransport = func(http.RoundTripper) http.RoundTripper { return v.transport }
	}
	return o
}

// cluster returns the administrator's client of the API server. It sends no request.
func (v *call) cluster() (*kube.Client, error) {
	c, err := kube.Dial(v.access())
	if errors.Is(err, kube.ErrNotConfigured) {
		return nil, hint.Add(errors.New("no kubeconfig was found"), "use --kubeconfig FILE or set KUBECONFIG, as for kubectl")
	}
	return c, err
}

// address is the address of the API server for compute nodes, from the flags.
type address struct{ host, port string }

func (a *address) flags(f *pflag.FlagSet) {
	f.StringVar(&a.host, "kubernetes-service-host", "", "let compute nodes reach the API server at `HOST`; by default, as in the kubeconfig")
	f.StringVar(&a.port, "kubernetes-service-port", "", "let compute nodes reach the API server at `PORT`; by default, as in the kubeconfig")
}

// of completes the address with that of server. An error in the flags is a usage error.
func (a *address) of(server string) (inventory.Address, error) {
	all, err := inventory.ForComputes(server, a.host, a.port)
	if err != nil && (a.host != "" || a.port != "") {
		return all, usage.Errorf("%v", err)
	}
	return all, err
}

// noteLoopback prints a note about a loopback address, which compute nodes cannot use.
func (v *call) noteLoopback(at inventory.Address) {
	if at.Loopback() {
		v.Say("note: on a compute node, %s is the node itself; give the address that compute nodes use with --kubernetes-service-host and --kubernetes-service-port", at)
	}
}
