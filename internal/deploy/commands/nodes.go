package commands

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/deploy/credentials"
	"github.com/compute-daemons/compute-daemons/internal/deploy/host"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// nodesSettings are those of every verb that goes to nodes.
type nodesSettings struct {
	system, sites, daemons string
	only                   []string
	ssh                    remote.SSH
	parallel               int
}

func (n *nodesSettings) flags(f *pflag.FlagSet) {
	f.StringVar(&n.system, "system-config", "", "`FILE` with the SystemConfiguration that names the nodes; otherwise the cluster's")
	f.StringVar(&n.sites, "systems", "", "`FILE` (systems.yaml) that says which SystemConfiguration belongs to which context")
	f.StringVar(&n.daemons, "daemons", "", "`FILE` (daemons.yaml) with the daemons, their accounts, arguments and environment")
	f.StringArrayVar(&n.only, "only-daemon", nil, "only the daemon of this `NAME`; may be repeated")
	f.IntVar(&n.parallel, "parallel", 32, "at most `N` nodes at once")
	f.StringVar(&n.ssh.Program, "ssh", "", "`PROGRAM` instead of ssh; it is called the same way")
	f.StringArrayVar(&n.ssh.Options, "ssh-option", nil, "an `OPTION` of ssh_config(5), or a word that begins with - for ssh itself (-F/path); may be repeated")
	f.StringVar(&n.ssh.User, "user", "", "log in as the user of this `NAME`; otherwise as ssh_config says")
	f.BoolVar(&n.ssh.Sudo, "sudo", false, "become root by sudo, which must not ask")
	f.DurationVar(&n.ssh.Connect, "connect-timeout", 10*time.Second, "a node that does not answer within `DURATION` is given up")
}

func (n *nodesSettings) check() error {
	switch {
	case n.parallel < 1:
		return usagef("--parallel is 1 at least")
	case n.ssh.Connect < time.Second:
		return usagef("--connect-timeout is a second at least")
	case n.system != "" && n.sites != "":
		return usagef("--system-config and --systems both say which nodes there are: give one")
	case strings.HasPrefix(n.ssh.User, "-"):
		return usagef("--user %.80q is no user", n.ssh.User)
	}
	return nil
}

// job is what the verbs for nodes have in common: which nodes, which daemons.
type job struct {
	v       *call
	n       *nodesSettings
	admin   *kube.Client // nil until it is needed
	site    *inventory.Site
	nodes   []inventory.Node
	daemons []inventory.Daemon
}

// newJob finds out which nodes and which daemons are meant.
func (v *call) newJob(ctx context.Context, n *nodesSettings, names []string) (*job, error) {
	j := &job{v: v, n: n}
	if err := n.check(); err != nil {
		return nil, err
	}
	var err error
	if j.daemons, err = n.chosen(); err != nil {
		return nil, err
	}
	system, err := j.system(ctx)
	if err != nil {
		return nil, err
	}
	all, err := inventory.Nodes(system)
	if err != nil {
		return nil, err
	}
	if j.nodes, err = inventory.Select(all, names); err != nil {
		return nil, usagef("%v", err)
	}
	return j, nil
}

// chosen are the daemons that are meant.
func (n *nodesSettings) chosen() ([]inventory.Daemon, error) {
	all := inventory.Defaults()
	if n.daemons != "" {
		var err error
		if all, err = inventory.ReadDaemons(n.daemons); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	for _, o := range n.only {
		if !slices.ContainsFunc(all, func(d inventory.Daemon) bool { return o != "" && (d.Name == o || d.Bin == o) }) {
			return nil, usagef("--only-daemon is one of %s, not %.80q", strings.Join(names, ", "), o)
		}
	}
	return slices.DeleteFunc(all, func(d inventory.Daemon) bool {
		return len(n.only) > 0 && !slices.Contains(n.only, d.Name) && (d.Bin == "" || !slices.Contains(n.only, d.Bin))
	}), nil
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
		return inventory.FromFile(j.n.system)
	case j.n.sites != "":
		sites, err := inventory.ReadSites(j.n.sites)
		if err != nil {
			return inventory.System{}, err
		}
		current := kube.CurrentContext(j.v.access())
		if current == "" {
			return inventory.System{}, errors.New("--systems goes by the context of the kubeconfig, and there is none: give --context or --kubeconfig")
		}
		site, err := inventory.SiteOf(sites, current)
		if err != nil {
			return inventory.System{}, err
		}
		j.site = &site
		return inventory.FromFile(site.SystemConfiguration)
	}
	c, err := j.cluster()
	if err != nil {
		return inventory.System{}, fmt.Errorf("%w; or name the nodes by --system-config FILE", err)
	}
	return inventory.FromCluster(ctx, c)
}

// address is where the computes reach the API server.
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
			return inventory.Address{}, fmt.Errorf("%w; or give --kubernetes-service-host and --kubernetes-service-port", err)
		}
		server = c.Address()
	}
	return a.of(server)
}

// wants are the daemons as a node gets them. from is a folder with credentials;
// "": they come from the cluster.
func (j *job) wants(ctx context.Context, from string, at inventory.Address, asked bool) ([]host.Daemon, error) {
	var list []host.Daemon
	for _, d := range j.daemons {
		want, err := daemonOf(d)
		if err != nil {
			return nil, err
		}
		switch {
		case d.Account.Name == "":
		case from != "":
			err = readCredentials(from, len(j.daemons) == 1, &want)
		default:
			err = j.fetch(ctx, d, at, asked, &want)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, want)
	}
	return list, nil
}

func (j *job) fetch(ctx context.Context, d inventory.Daemon, at inventory.Address, asked bool, want *host.Daemon) error {
	admin, err := j.cluster()
	if err != nil {
		return fmt.Errorf("%w; or bring the credentials along by --credentials DIR", err)
	}
	r := credentials.Request{Account: d.Account, Program: d.Bin, Wait: 15 * time.Second}
	if asked {
		r.Address = at
	}
	c, err := credentials.Get(ctx, admin, r)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	for _, n := range c.Notes {
		j.v.say("%s: note: %s", d.Name, n)
	}
	want.Token, want.CA = []byte(c.Token), c.CA
	return nil
}

func daemonOf(d inventory.Daemon) (host.Daemon, error) {
	want := host.Daemon{Name: d.Name, Bin: d.Bin}
	var err error
	if want.Arguments, err = words(d.ExtraArgs); err != nil {
		return want, fmt.Errorf("%s: extraArgs: %w", d.Name, err)
	}
	for _, e := range d.Env {
		want.Environment = append(want.Environment, host.Variable{Name: e.Name, Value: e.Value})
	}
	return want, nil
}

// words splits arguments at blanks, outside of quotes.
func words(text string) (list []string, err error) {
	var word strings.Builder
	inside, quote := false, rune(0)
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			inside, quote = true, c
		case c == ' ':
			if inside {
				list = append(list, word.String())
				word.Reset()
			}
			inside = false
		default:
			inside = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", quote)
	}
	if inside {
		list = append(list, word.String())
	}
	return list, nil
}

// readCredentials takes what nnf-deploy credentials has written.
func readCredentials(dir string, alone bool, want *host.Daemon) error {
	below := filepath.Join(dir, want.Name)
	if _, err := os.Stat(below); alone && errors.Is(err, fs.ErrNotExist) {
		below = dir
	}
	for _, f := range []struct {
		name string
		into *[]byte
	}{{credentials.TokenFile, &want.Token}, {credentials.CertFile, &want.CA}} {
		data, err := os.ReadFile(filepath.Join(below, f.name))
		if err != nil {
			return fmt.Errorf("credentials of %s: %w", want.Name, err)
		}
		if len(strings.TrimSpace(string(data))) == 0 {
			return fmt.Errorf("credentials of %s: %s is empty", want.Name, filepath.Join(below, f.name))
		}
		*f.into = data
	}
	return nil
}

// wantOf is what one node is to be.
func wantOf(node inventory.Node, at inventory.Address, daemons []host.Daemon) host.Want {
	return host.Want{Node: node.Name, Host: at.Host, Port: strconv.Itoa(at.Port), Daemons: daemons}
}
